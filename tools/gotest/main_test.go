package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// module writes a module of one package, whose tests are these.
func module(t *testing.T, tests string) string {
	t.Helper()
	dir := t.TempDir()
	for file, content := range map[string]string{"go.mod": "module example.com/m\n\ngo 1.26\n", "m_test.go": "package m\n\n" + tests} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600))
	}
	return dir
}

const noise = `
import (
	"fmt"
	"testing"
)

func TestNoise(t *testing.T) { fmt.Println("hundreds of lines of a library"); t.Log("all went well") }
`

func TestWhatFailedIsSaidLast(t *testing.T) {
	dir := module(t, noise+`
func TestOuter(t *testing.T) {
	t.Run("good", func(t *testing.T) { t.Log("nothing to see") })
	t.Run("bad", func(t *testing.T) { t.Error("two is not three") })
}
`)
	var out bytes.Buffer
	status, err := options{}.run(t.Context(), []string{"go", "-C", dir, "test", "-vet=off", "."}, &out, io.Discard)
	require.NoError(t, err)
	require.Equal(t, 1, status)
	said := out.String()
	require.NotContains(t, said, "hundreds of lines")
	require.NotContains(t, said, "nothing to see")
	require.Contains(t, said, "two is not three")
	require.True(t, strings.HasSuffix(said, "=== FAILED: example.com/m TestOuter/bad\n=== FAILED: example.com/m \n"), said)
}

func TestWhatFailedIsAddedToAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "failures")
	var out bytes.Buffer
	for _, says := range []string{"two is not three", "one is not two"} {
		dir := module(t, noise+`func TestBad(t *testing.T) { t.Error("`+says+`") }`)
		status, err := options{failures: file}.run(t.Context(), []string{"go", "-C", dir, "test", "-vet=off", "."}, &out, io.Discard)
		require.NoError(t, err)
		require.Equal(t, 1, status)
		require.NotContains(t, out.String(), says)
	}
	kept, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Contains(t, string(kept), "two is not three")
	require.Contains(t, string(kept), "one is not two")
}

func TestAPanicIsSaid(t *testing.T) {
	dir := module(t, noise+`func TestPanics(t *testing.T) { panic("out of order") }`)
	var out bytes.Buffer
	status, err := options{}.run(t.Context(), []string{"go", "-C", dir, "test", "-vet=off", "."}, &out, io.Discard)
	require.NoError(t, err)
	require.Equal(t, 1, status)
	require.Contains(t, out.String(), "panic: out of order")
	require.NotContains(t, out.String(), "hundreds of lines")
}

func TestWhoRunsOutOfTimeIsSaid(t *testing.T) {
	dir := module(t, noise+`func TestHangs(t *testing.T) { t.Log("begun"); select {} }`)
	var out bytes.Buffer
	status, err := options{}.run(t.Context(), []string{"go", "-C", dir, "test", "-vet=off", "-timeout", "1s", "."}, &out, io.Discard)
	require.NoError(t, err)
	require.Equal(t, 1, status)
	require.Contains(t, out.String(), "=== FAILED: example.com/m TestHangs")
	require.Contains(t, out.String(), "test timed out after 1s")
	require.NotContains(t, out.String(), "hundreds of lines")
}

func TestWhatCannotBeBuiltIsSaid(t *testing.T) {
	dir := module(t, "func Test(")
	var out bytes.Buffer
	status, err := options{}.run(t.Context(), []string{"go", "-C", dir, "test", "-vet=off", "."}, &out, io.Discard)
	require.NoError(t, err)
	require.NotZero(t, status)
	require.Contains(t, out.String(), "expected ')', found 'EOF'")
}

func TestAPackageThatPassesIsALine(t *testing.T) {
	dir := module(t, noise)
	var out bytes.Buffer
	status, err := options{}.run(t.Context(), []string{"go", "-C", dir, "test", "-vet=off", "-count=1", "."}, &out, io.Discard)
	require.NoError(t, err)
	require.Zero(t, status)
	require.Regexp(t, `^ok  \texample.com/m\t[0-9.]+s\n$`, out.String())
}

func TestItRunsGoTestOnly(t *testing.T) {
	_, err := options{}.run(t.Context(), []string{"go", "build"}, nil, nil)
	require.ErrorContains(t, err, "which go test")
}
