package readme

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
)

const repository = "../.."

// TestTour starts the node that `make run` starts and types the tour's commands, as printed, into one shell. What they
// print must be what the README says they print.
func TestTour(t *testing.T) {
	commands, outputs := tour(t, "tour")
	require.Greater(t, len(commands), 5, "the tour was not found in the README")
	ofGame, answers := tour(t, "game")
	require.NotEmpty(t, ofGame, "nothing of a game backend was found in the README")
	commands, outputs = append(commands, ofGame...), append(outputs, answers...)

	folder := shared(t)
	build := exec.Command("make", "build")
	build.Dir = folder
	out, err := build.CombinedOutput()
	require.NoError(t, err, "make build: %s", out)
	serve(t, folder)

	// One shell types all of it, since later commands use the variables and jobs of earlier ones.
	const mark = "--- end of block ---"
	var script strings.Builder
	script.WriteString("exec 2>&1\nset +m\n")
	for _, c := range commands {
		script.WriteString(c + "\necho '" + mark + "'\n")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute) // it compiles, on whatever machine
	defer cancel()
	shell := exec.CommandContext(ctx, "bash", "-c", script.String())
	shell.Dir = folder
	shell.WaitDelay = 5 * time.Second
	shell.Env = environment()
	printed, err := shell.Output()
	require.NoError(t, err, "%s", printed)

	blocks := strings.Split(string(printed), mark+"\n")
	for i, want := range outputs {
		require.Regexp(t, pattern(want), strings.TrimSpace(blocks[i]), "the README says that\n%s\nprints\n%s", commands[i], want)
	}
}

// TestProgram runs the README's Go program, as printed, as a user's module would.
func TestProgram(t *testing.T) {
	text := section(t, "<!-- program -->", "\n## ")
	program := fenced(text, "go")
	require.Len(t, program, 1)
	require.Less(t, strings.Count(program[0], "\n"), 40, "the README promises a small program")

	root, err := filepath.Abs(repository)
	require.NoError(t, err)
	folder := t.TempDir()
	module := "module greeter\n\ngo 1.26.0\n"
	for _, m := range []string{"events", "pkg/bus"} {
		path := "github.com/bannou-mesh/bannou/" + m
		module += "\nrequire " + path + " v0.0.0\nreplace " + path + " => " + filepath.Join(root, m) + "\n"
	}
	require.NoError(t, os.WriteFile(filepath.Join(folder, "go.mod"), []byte(module), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(folder, "main.go"), []byte(program[0]), 0o600))
	run := exec.Command("go", "run", "-mod=mod", ".")
	run.Dir = folder
	run.Env = append(os.Environ(), "GOWORK=off")
	var errs bytes.Buffer
	run.Stderr = &errs
	out, err := run.Output()
	require.NoError(t, err, "%s", &errs)
	require.Equal(t, "welcome, ada\n", string(out))
}

// tour reads the commands of a part of the README, and the output that each block is said to print.
func tour(t *testing.T, name string) (commands, outputs []string) {
	text := section(t, "<!-- "+name+" -->", "<!-- "+name+" ends -->")
	fence := regexp.MustCompile("(?ms)^```(sh|text)\n(.*?)^```$")
	for _, m := range fence.FindAllStringSubmatch(text, -1) {
		if m[1] == "sh" {
			commands = append(commands, strings.TrimSpace(m[2]))
			outputs = append(outputs, "")
		} else {
			outputs[len(outputs)-1] = strings.TrimSpace(m[2])
		}
	}
	return commands, outputs
}

// pattern makes a regular expression of what the README prints: … is anything, runs of spaces are as wide as they like,
// since columns are as wide as what stands in them.
func pattern(want string) string {
	quoted := regexp.QuoteMeta(want)
	quoted = strings.ReplaceAll(quoted, "…", ".*")
	quoted = regexp.MustCompile(` +`).ReplaceAllString(quoted, ` +`)
	return `(?s)^` + quoted + `$`
}

func section(t *testing.T, from, to string) string {
	readme, err := os.ReadFile(filepath.Join(repository, "README.md"))
	require.NoError(t, err)
	_, text, found := strings.Cut(string(readme), from)
	require.True(t, found, from)
	text, _, found = strings.Cut(text, to)
	require.True(t, found, to)
	return text
}

func fenced(text, language string) (blocks []string) {
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(text, -1) {
		blocks = append(blocks, m[1])
	}
	return blocks
}

// copied is the folder of the copy that the tests share: what one of them has compiled there, the next has not to.
var copied string

func TestMain(m *testing.M) {
	code := servers.Main(m)
	if copied != "" {
		_ = os.RemoveAll(copied)
	}
	os.Exit(code)
}

// shared is a copy of what git knows of the repository, and of what is new in it, so that the tests neither find a developer's data nor leave
// their own behind.
func shared(t *testing.T) string {
	t.Helper()
	if copied != "" {
		return copied
	}
	folder, err := os.MkdirTemp("", "bannou-readme-")
	require.NoError(t, err)
	copied = folder
	list := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = repository
	names, err := list.Output()
	require.NoError(t, err)
	for name := range strings.SplitSeq(strings.TrimRight(string(names), "\x00"), "\x00") {
		from, to := filepath.Join(repository, name), filepath.Join(folder, name)
		content, err := os.ReadFile(from)
		if os.IsNotExist(err) {
			continue // deleted, and not committed yet
		}
		require.NoError(t, err)
		info, err := os.Stat(from)
		require.NoError(t, err)
		require.NoError(t, os.MkdirAll(filepath.Dir(to), 0o700))
		require.NoError(t, os.WriteFile(to, content, info.Mode().Perm()))
	}
	return folder
}

// serve runs what `make run` runs until the test ends.
func serve(t *testing.T, folder string) {
	// The README names the port, so there is no choosing another.
	require.Eventually(t, func() bool {
		l, err := net.Listen("tcp", "127.0.0.1:3500")
		return err == nil && l.Close() == nil
	}, 20*time.Second, 100*time.Millisecond, "the tour needs 127.0.0.1:3500, and something else has it")
	node := exec.Command("make", "run")
	node.Dir = folder
	node.Env = environment()
	var log bytes.Buffer
	node.Stdout, node.Stderr = &log, &log
	require.NoError(t, node.Start())
	t.Cleanup(func() {
		_ = node.Process.Signal(syscall.SIGTERM) // make passes it on; an interrupt it would not
		_ = node.Wait()
		if t.Failed() {
			t.Logf("log of the node:\n%s", &log)
		}
	})
	require.Eventually(t, func() bool {
		res, err := http.Get("http://127.0.0.1:3500/readyz")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	}, time.Minute, 20*time.Millisecond)
}

func environment() []string {
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "BANNOU_") {
			env = append(env, e)
		}
	}
	return env
}
