package scaffold_test

import (
	"flag"
	"go/format"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/cmd/internal/scaffold"
)

var update = flag.Bool("update", false, "write testdata and docs/adding-a-service.md anew")

const repository = "../../.."

// planned are the files of a service of the repository itself, by their paths below the module's folder. What comes from other files of the
// repository is left out.
func planned(t *testing.T, name string) map[string]string {
	t.Helper()
	r, err := scaffold.FindRepository(repository)
	require.NoError(t, err)
	p, err := scaffold.New(r, name, "", nil)
	require.NoError(t, err)
	files := map[string]string{}
	for _, f := range p.Files {
		if path, in := strings.CutPrefix(f.Path, p.Dir+"/"); in && path != "go.sum" {
			files[path] = f.Content
		}
	}
	return files
}

// TestGolden compares what is written with testdata.
func TestGolden(t *testing.T) {
	const golden = "testdata/match-history"
	files := planned(t, "match-history")
	if *update {
		require.NoError(t, os.RemoveAll(golden))
		for path, content := range files {
			name := filepath.Join(golden, path+".golden")
			require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
			require.NoError(t, os.WriteFile(name, []byte(content), 0o644))
		}
	}
	seen := 0
	require.NoError(t, filepath.WalkDir(golden, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		seen++
		want, err := os.ReadFile(path)
		relative := strings.TrimPrefix(strings.TrimSuffix(filepath.ToSlash(path), ".golden"), golden+"/")
		require.Equal(t, string(want), files[relative], "%s; if the change is meant, run the tests with -update", relative)
		return err
	}))
	require.Len(t, files, seen)
}

var pageFile = regexp.MustCompile("(?ms)^(`services/leaderboard/([A-Za-z/_.]+)`:\n\n```[a-z]+\n)(.*?)(^```$)")

// TestGuidePage has docs/adding-a-service.md show what the command writes.
func TestGuidePage(t *testing.T) {
	name := filepath.Join(repository, "docs", "adding-a-service.md")
	page, err := os.ReadFile(name)
	require.NoError(t, err)
	files := planned(t, "leaderboard")
	shown := 0
	want := pageFile.ReplaceAllStringFunc(string(page), func(block string) string {
		found := pageFile.FindStringSubmatch(block)
		content, ok := files[found[2]]
		require.True(t, ok, "the page shows %s, which is not written", found[2])
		shown++
		return found[1] + content + found[4]
	})
	require.Equal(t, 3, shown, "files were found in the page")
	if *update {
		require.NoError(t, os.WriteFile(name, []byte(want), 0o644))
		return
	}
	require.Equal(t, want, string(page), "write it anew: go -C cmd test ./internal/scaffold -run TestGuidePage -update")
}

// names are such that imports, initialisms and lengths are in the way, if anything is.
func names() []string {
	return []string{"leaderboard", "match-history", "a", "z9", "id-board", "urls-of-uuids", "zones", "abcdefghijklmnopqrstuvwx"}
}

// TestWhatIsGeneratedIs has the generator of events say that it would write the same, whatever the name.
func TestWhatIsGeneratedIs(t *testing.T) {
	generator := filepath.Join(t.TempDir(), "eventgen")
	build := exec.Command("go", "-C", filepath.Join(repository, "tools"), "build", "-o", generator, "./eventgen")
	build.Env = append(os.Environ(), "GOWORK=off")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	for _, name := range names() {
		folder := t.TempDir()
		for path, content := range planned(t, name) {
			put(t, filepath.Join(folder, path), content)
			if strings.HasSuffix(path, ".go") {
				formatted, err := format.Source([]byte(content))
				require.NoError(t, err)
				require.Equal(t, string(formatted), content, "%s of %s", path, name)
			}
		}
		out, err := exec.Command(generator, "-schemas", filepath.Join(folder, "schemas"), "-out", folder,
			"-package", strings.ReplaceAll(name, "-", ""), "-check").CombinedOutput()
		require.NoError(t, err, "%s: %s", name, out)
	}
}

func put(t *testing.T, name, content string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
	require.NoError(t, os.WriteFile(name, []byte(content), 0o644))
}

// newRepository is as much of one as a plan looks at.
func newRepository(t *testing.T) (string, *scaffold.Repository) {
	t.Helper()
	folder := t.TempDir()
	put(t, filepath.Join(folder, "go.work"), "go 1.26.0\n\nuse (\n\t./cmd\n\t./services\n)\n")
	put(t, filepath.Join(folder, "cmd", "go.mod"), "module github.com/bannou-mesh/bannou/cmd\n\ngo 1.26.0\n\nrequire (\n\tgithub.com/stretchr/testify v1.2.3\n)\n")
	put(t, filepath.Join(folder, "cmd", "go.sum"), "")
	r, err := scaffold.FindRepository(folder)
	require.NoError(t, err)
	return folder, r
}

func TestWriteAddsTheModuleToTheWorkspace(t *testing.T) {
	folder, r := newRepository(t)
	p, err := scaffold.New(r, "leaderboard", "", nil)
	require.NoError(t, err)
	require.NoDirExists(t, filepath.Join(folder, "services"), "a plan writes nothing")
	require.NoError(t, p.Write())
	work, err := os.ReadFile(filepath.Join(folder, "go.work"))
	require.NoError(t, err)
	require.Equal(t, "go 1.26.0\n\nuse (\n\t./cmd\n\t./services\n\t./services/leaderboard\n)\n", string(work))
	for _, f := range p.Files {
		content, err := os.ReadFile(filepath.Join(folder, f.Path))
		require.NoError(t, err)
		require.Equal(t, f.Content, string(content))
	}
}

func TestDir(t *testing.T) {
	folder, r := newRepository(t)
	p, err := scaffold.New(r, "leaderboard", filepath.Join(folder, "games", "one", "board"), nil)
	require.NoError(t, err)
	require.NoError(t, p.Write())
	module, err := os.ReadFile(filepath.Join(folder, "games", "one", "board", "go.mod"))
	require.NoError(t, err)
	require.Contains(t, string(module), "module github.com/bannou-mesh/bannou/games/one/board\n")
	require.Contains(t, string(module), "=> ../../../pkg/bus\n")

	outside := t.TempDir()
	linked := filepath.Join(folder, "linked")
	require.NoError(t, os.Symlink(outside, linked))
	for _, dir := range []string{outside, folder, filepath.Join(folder, ".."), filepath.Join(linked, "board")} {
		_, err = scaffold.New(r, "other", dir, nil)
		require.ErrorIs(t, err, scaffold.ErrNoRepository, dir)
	}
}

func TestNothingIsWrittenOver(t *testing.T) {
	folder, r := newRepository(t)
	p, err := scaffold.New(r, "leaderboard", "", nil)
	require.NoError(t, err)
	theirs := filepath.Join(folder, "services", "leaderboard", "endpoints.go")
	put(t, theirs, "theirs")
	require.ErrorIs(t, p.Write(), scaffold.ErrExists, "it came between plan and write")
	content, err := os.ReadFile(theirs)
	require.NoError(t, err)
	require.Equal(t, "theirs", string(content))
	work, err := os.ReadFile(filepath.Join(folder, "go.work"))
	require.NoError(t, err)
	require.NotContains(t, string(work), "leaderboard")

	_, err = scaffold.New(r, "leaderboard", "", nil)
	require.ErrorIs(t, err, scaffold.ErrExists)
	_, err = scaffold.New(r, "accounts", "", []string{"accounts"})
	require.ErrorIs(t, err, scaffold.ErrExists)
	put(t, filepath.Join(folder, "events", "schemas", "connect.yaml"), "")
	_, err = scaffold.New(r, "connect", "", nil)
	require.ErrorIs(t, err, scaffold.ErrExists)
}

func TestNamesThatNoServiceCanHave(t *testing.T) {
	_, r := newRepository(t)
	for _, name := range []string{"", "Leaderboard", "leader_board", "leader board", "-a", "a-", "a--b", "9a", "a-9", "a/b", "..", "a.b", "é",
		"func", "ty-pe", "map", "string", "state", "main", "internal", "my-test", "bannou-x", strings.Repeat("a", 25)} {
		_, err := scaffold.New(r, name, "", nil)
		require.ErrorIs(t, err, scaffold.ErrName, "%q", name)
	}
	for _, name := range names() {
		_, err := scaffold.New(r, name, "", nil)
		require.NoError(t, err, name)
	}
}

func TestOutsideARepository(t *testing.T) {
	_, err := scaffold.FindRepository(t.TempDir())
	require.ErrorIs(t, err, scaffold.ErrNoRepository)
	require.ErrorContains(t, err, "no published versions")
	put(t, filepath.Join(t.TempDir(), "go.work"), "go 1.26.0\n") // somebody's own
	_, err = scaffold.FindRepository(t.TempDir())
	require.ErrorIs(t, err, scaffold.ErrNoRepository)
}

// TestPlansAreTheSame makes one again and again: maps, times and places must not show.
func TestPlansAreTheSame(t *testing.T) {
	_, r := newRepository(t)
	first, err := scaffold.New(r, "leaderboard", "", nil)
	require.NoError(t, err)
	_, other := newRepository(t)
	for range 5 {
		again, err := scaffold.New(other, "leaderboard", "", nil)
		require.NoError(t, err)
		require.True(t, slices.Equal(first.Files, again.Files))
	}
}
