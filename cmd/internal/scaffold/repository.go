package scaffold

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// root is the path that every module of the repository begins with.
const root = "github.com/bannou-mesh/bannou"

// ErrNoRepository is the error of a folder that is not in a copy of the repository.
var ErrNoRepository = errors.New("not in a copy of Bannou's repository")

// A Repository is a copy of Bannou's repository.
type Repository struct {
	folder  string // absolute, without symbolic links
	work    string // the text of go.work
	command string // and of cmd/go.mod
}

// FindRepository is the one that a folder is in.
func FindRepository(folder string) (*Repository, error) {
	start, err := absolute(folder)
	if err != nil {
		return nil, err
	}
	for at := start; ; at = filepath.Dir(at) {
		work, err := os.ReadFile(filepath.Join(at, "go.work"))
		if err == nil {
			command, err := os.ReadFile(filepath.Join(at, "cmd", "go.mod"))
			if err == nil && strings.HasPrefix(string(command), "module "+root+"/cmd\n") {
				return &Repository{folder: at, work: string(work), command: string(command)}, nil
			}
		}
		if at == filepath.Dir(at) {
			return nil, fmt.Errorf("%s is %w: a service is written beside the libraries that it uses, which have no published versions; "+
				"go to a copy of the repository. A program elsewhere needs no module of it: see docs/adding-a-service.md", start, ErrNoRepository)
		}
	}
}

// Folder is where the repository is.
func (r *Repository) Folder() string { return r.folder }

// absolute is an absolute path without symbolic links. The last parts of it need not exist.
func absolute(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	resolved, err := filepath.EvalSymlinks(path)
	if !errors.Is(err, fs.ErrNotExist) || path == filepath.Dir(path) {
		return resolved, err
	}
	above, err := absolute(filepath.Dir(path))
	return filepath.Join(above, filepath.Base(path)), err
}

var (
	goLine      = regexp.MustCompile(`(?m)^go (\S+)$`)
	testifyLine = regexp.MustCompile(`(?m)^\s*github\.com/stretchr/testify (\S+)`)
	useBlock    = regexp.MustCompile(`(?ms)^use \(\n(.*?)^\)$`)
)

// version is the version that a line of cmd/go.mod names.
func (r *Repository) version(line *regexp.Regexp) (string, error) {
	found := line.FindStringSubmatch(r.command)
	if found == nil {
		return "", fmt.Errorf("%s has no line %q", filepath.Join(r.folder, "cmd", "go.mod"), line)
	}
	return found[1], nil
}

// workspace is go.work with one module more, in order.
func (r *Repository) workspace(dir string) (string, error) {
	at := useBlock.FindStringSubmatchIndex(r.work)
	if at == nil {
		return "", fmt.Errorf("%s has no list of modules as `go work use` writes it", filepath.Join(r.folder, "go.work"))
	}
	lines := strings.SplitAfter(strings.TrimSuffix(r.work[at[2]:at[3]], "\n")+"\n", "\n")
	lines = slices.DeleteFunc(lines, func(l string) bool { return l == "" })
	lines = append(lines, "\t./"+dir+"\n")
	slices.Sort(lines)
	return r.work[:at[2]] + strings.Join(slices.Compact(lines), "") + r.work[at[3]:], nil
}
