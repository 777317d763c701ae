package servers

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
)

// SkippedFile is the environment variable that names the file where CI collects what was left out, a sentence a line.
const SkippedFile = "BANNOU_TEST_SKIPPED"

// SkipAloud skips a test that the machine does not let run, and puts the sentence that says so where CI shows what was left out: once, however many
// tests it keeps from running.
func SkipAloud(t testing.TB, sentence string) {
	t.Helper()
	if path := os.Getenv(SkippedFile); path != "" {
		if err := addLine(path, sentence); err != nil {
			t.Errorf("that a test is skipped cannot be said: %v", err)
		}
	}
	t.Skip(sentence)
}

// addLine adds a line to a file that does not have it.
func addLine(path, line string) error {
	content, err := os.ReadFile(path) //nolint:gosec // the file is named by who runs the tests
	if err == nil && slices.Contains(strings.Split(string(content), "\n"), line) || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644) //nolint:gosec // as a shell makes it, which adds to it too
	if err != nil {
		return err
	}
	_, err = f.WriteString(line + "\n")
	return errors.Join(err, f.Close())
}
