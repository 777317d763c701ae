package gocode

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/tools/eventgen/internal/schema"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestGolden generates code for a schema that uses everything a schema can use, and compares it with what stands in testdata.
func TestGolden(t *testing.T) {
	files := generate(t, os.DirFS("testdata/schemas"))
	compiles(t, files)
	for name, code := range files {
		path := filepath.Join("testdata", name+".golden")
		if *update {
			require.NoError(t, os.WriteFile(path, code, 0o644))
		}
		want, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, string(want), string(code), "%s; if the change is meant, run the test with -update", name)
	}
	golden, err := filepath.Glob("testdata/*.golden")
	require.NoError(t, err)
	require.Len(t, golden, len(files))
}

func TestGenerateIsDeterministic(t *testing.T) {
	first := generate(t, os.DirFS("testdata/schemas"))
	for range 20 { // maps are iterated in another order each time
		require.Equal(t, first, generate(t, os.DirFS("testdata/schemas")))
	}
}

// FuzzSchema feeds arbitrary text to the reader. It must say what is wrong, with a line that the text has, or else the
// generated code must compile.
func FuzzSchema(f *testing.F) {
	for _, dir := range []string{"testdata/schemas", "../../../../events/schemas"} {
		seeds, err := filepath.Glob(dir + "/*.yaml")
		require.NoError(f, err)
		require.NotEmpty(f, seeds)
		for _, seed := range seeds {
			content, err := os.ReadFile(seed)
			require.NoError(f, err)
			f.Add(content)
		}
	}
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("components: {schemas: {A: {type: object, description: A, properties: {a: {type: array, items: {$ref: '#/components/schemas/A'}, description: a}}}}}\n"))
	f.Add([]byte("\xff\xfe"))
	f.Add([]byte("? {a: b}\n: c\n<<: 1\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		set, err := schema.Read(fstest.MapFS{"fuzz.yaml": {Data: content}}, "schemas")
		if err != nil {
			var mistakes schema.Errors
			require.ErrorAs(t, err, &mistakes)
			for _, m := range mistakes {
				require.Equal(t, "schemas/fuzz.yaml", m.Pos.File)
				require.Positive(t, m.Pos.Line, m.Message)
				require.LessOrEqual(t, m.Pos.Line, lines(content)+1, m.Message)
			}
			return
		}
		files, err := Generate(set, Events)
		require.NoError(t, err)
		compiles(t, files)
	})
}

// lines counts them as YAML does, to which a lone carriage return and three more characters are the end of one.
func lines(content []byte) (n int) {
	for _, r := range string(content) {
		switch r {
		case '\n', '\r', '\u0085', '\u2028', '\u2029':
			n++
		}
	}
	return n
}

func generate(t *testing.T, schemas fs.FS) map[string][]byte {
	t.Helper()
	set, err := schema.Read(schemas, "schemas")
	require.NoError(t, err)
	files, err := Generate(set, Events)
	require.NoError(t, err)
	return files
}

// compiles type-checks generated code together with what is written by hand in package events.
func compiles(t *testing.T, files map[string][]byte) {
	t.Helper()
	const byHand = `package events
		type Event interface { EventName() string }
		type Base struct { EventID string }
		func (*Base) Stamp() {}
		type Subscription struct { Topic, Handler, Event string }`
	fset := token.NewFileSet()
	var parsed []*ast.File
	for name, code := range files {
		file, err := parser.ParseFile(fset, name, code, parser.ParseComments)
		require.NoError(t, err)
		require.Nil(t, file.Doc, "only doc.go documents the package")
		parsed = append(parsed, file)
	}
	base, err := parser.ParseFile(fset, "base.go", byHand, 0)
	require.NoError(t, err)
	config := types.Config{Importer: onlyTime{}}
	_, err = config.Check("events", fset, append(parsed, base), nil)
	require.NoError(t, err)
}

// onlyTime imports a stand-in for package time, and nothing else: generated code needs no more, and must import no more.
type onlyTime struct{}

func (onlyTime) Import(path string) (*types.Package, error) {
	if path != "time" {
		return nil, fmt.Errorf("generated code imports %s", path)
	}
	p := types.NewPackage("time", "time")
	name := types.NewTypeName(token.NoPos, p, "Time", nil)
	types.NewNamed(name, types.NewStruct(nil, nil), nil)
	p.Scope().Insert(name)
	p.MarkComplete()
	return p, nil
}
