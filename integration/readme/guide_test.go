package readme

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestAddingAService follows docs/adding-a-service.md in a copy of the repository: it writes the files that the page
// shows, generates the events, and runs the page's test.
func TestAddingAService(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(repository, "docs", "adding-a-service.md"))
	require.NoError(t, err)
	files := regexp.MustCompile("(?ms)^`([a-z/_.]+)`:\n\n```[a-z]+\n(.*?)^```$").FindAllStringSubmatch(string(page), -1)
	require.Len(t, files, 3, "the files were not found in the page")

	folder := checkout(t)
	for _, f := range files {
		name := filepath.Join(folder, f[1])
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o700))
		require.NoError(t, os.WriteFile(name, []byte(f[2]), 0o600))
	}
	for _, command := range [][]string{
		{"go", "-C", "tools", "run", "./eventgen", "-schemas", "../events/schemas", "-out", "../events"},
		{"go", "-C", "services", "vet", "./leaderboard"},
		{"go", "-C", "services", "test", "-run", "TestTheBestScoreIsKept", "./leaderboard"},
	} {
		cmd := exec.Command(command[0], command[1:]...)
		cmd.Dir = folder
		cmd.Env = append(os.Environ(), "GOWORK=off")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%v: %s", command, out)
	}
}
