package servers

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// executable returns the first of the named programs that is on the PATH or in one of the places, which are patterns of whole paths.
// accept, unless nil, may refuse a file.
func executable(names, places []string, accept func(path string) bool) (string, bool) {
	var found []string
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			found = append(found, path)
		}
	}
	for _, pattern := range places {
		matches, _ := filepath.Glob(pattern) // only a malformed pattern is an error
		slices.Sort(matches)
		slices.Reverse(matches) // of several versions the last
		found = append(found, matches...)
	}
	for _, path := range found {
		info, err := os.Stat(path)
		if err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 && (accept == nil || accept(path)) {
			return path, true
		}
	}
	return "", false
}

// environment is what a server inherits of ours: where programs are, and nothing that could configure it. Debian keeps servers in sbin,
// which is not on everybody's PATH.
func environment(home string, more ...string) []string {
	path := strings.Join([]string{os.Getenv("PATH"), "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}, ":")
	return append([]string{"PATH=" + strings.TrimPrefix(path, ":"), "HOME=" + home, "TMPDIR=" + home, "LC_ALL=C"}, more...)
}
