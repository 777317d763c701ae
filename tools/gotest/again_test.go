package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A second is what came of a run with a second chance.
type second struct {
	status int
	out    string // what was printed
	told   string // what was kept for the end
	alone  string // the lines of those that passed only alone
}

// again runs the tests of a module of one package with at most two second chances. They have missed, which is true the first time that
// one of them asks for a name.
func again(t *testing.T, o options, tests string, flags ...string) second {
	t.Helper()
	dir, kept := module(t, `
import (
	"fmt"
	"os"
	"testing"
)

func missed(name string) bool {
	_, err := os.Stat(name)
	_ = os.WriteFile(name, nil, 0o600)
	fmt.Println("ran", name)
	return err != nil
}
`+tests), t.TempDir()
	o.again, o.failures, o.alone = 2, filepath.Join(kept, "failures"), filepath.Join(kept, "alone")
	var out bytes.Buffer
	command := append(append([]string{"go", "-C", dir, "test", "-vet=off", "-count=1"}, flags...), "./...")
	status, err := o.run(t.Context(), command, &out, io.Discard)
	require.NoError(t, err)
	said, err := os.ReadFile(o.failures)
	require.NoError(t, err)
	alone, _ := os.ReadFile(o.alone)
	return second{status, out.String(), string(said), string(alone)}
}

func TestWhatPassesAloneIsTold(t *testing.T) {
	s := again(t, options{}, `
func TestGood(t *testing.T) { missed("good") }
func TestLate(t *testing.T) { t.Run("one", func(t *testing.T) { if missed("late") { t.Error("not within a second") } }) }
func TestLater(t *testing.T) { if missed("later") { t.Error("not within a minute") } }
`, "-run=Test")
	require.Zero(t, s.status, s.told)
	require.Equal(t, "=== PASSED ONLY ALONE: example.com/m TestLate\n=== PASSED ONLY ALONE: example.com/m TestLater\n", s.alone)
	require.True(t, strings.HasSuffix(s.told, s.alone), s.told)
	require.Contains(t, s.told, "not within a second")
	require.Contains(t, s.told, "not within a minute")
	require.Regexp(t, `(?s)FAIL.*=== AGAIN, ALONE: example.com/m TestLate\nok .*=== AGAIN, ALONE: example.com/m TestLater\nok `, s.out)
}

func TestEachIsRunByItselfWithTheSameFlags(t *testing.T) {
	s := again(t, options{}, `
func TestCompany(t *testing.T) { _ = os.Setenv("COMPANY", "yes") }
func TestLate(t *testing.T) {
	if missed("late") {
		t.Fatal("late")
	}
	if os.Getenv("COMPANY") != "" || !testing.Short() {
		t.Fatal("not alone, or not short")
	}
}
func TestLateToo(t *testing.T) {
	if missed("late too") {
		t.Error("late too")
	}
}
`, "-short")
	require.Zero(t, s.status, s.told)
}

func TestWhatFailsAgainHasFailed(t *testing.T) {
	s := again(t, options{}, `
func TestBad(t *testing.T) { t.Error("two is not three, at try", missed("bad")) }
func TestLate(t *testing.T) { if missed("late") { t.Error("late") } }
`)
	require.Equal(t, 1, s.status)
	require.Contains(t, s.told, "at try true")
	require.Contains(t, s.told, "at try false")
	require.Contains(t, s.told, "=== FAILED ALONE TOO: example.com/m TestBad\n")
	require.Equal(t, "=== PASSED ONLY ALONE: example.com/m TestLate\n", s.alone)
}

func TestASkippedTestHasNotPassed(t *testing.T) {
	s := again(t, options{}, `func TestLate(t *testing.T) { if missed("late") { t.Fatal("late") }; t.Skip("no server") }`)
	require.Equal(t, 1, s.status)
	require.Contains(t, s.told, "=== FAILED ALONE TOO: example.com/m TestLate\n")
}

func TestWhoRanOutOfTimeIsRunWithItsWholePackage(t *testing.T) {
	s := again(t, options{}, `
func TestWaits(t *testing.T) { t.Parallel(); missed("not yet") }
func TestHangs(t *testing.T) { if missed("hangs") { select {} } }
func TestAfter(t *testing.T) { missed("after"); t.Run("sub", func(t *testing.T) {}) }
`, "-timeout=2s")
	require.Zero(t, s.status, s.told)
	require.Equal(t, "=== PASSED ONLY ALONE: example.com/m TestHangs\n", s.alone)

	s = again(t, options{}, `
func TestHangs(t *testing.T) { if missed("hangs") { select {} } }
func TestBad(t *testing.T) { t.Error("only now") }
`, "-timeout=2s")
	require.Equal(t, 1, s.status)
	require.Contains(t, s.told, "only now")
}

func TestWhatHasNoSecondChance(t *testing.T) {
	tests := map[string]struct{ tests, why string }{
		"too many": {
			`func TestA(t *testing.T) { t.Fail() }; func TestB(t *testing.T) { t.Fail() }; func TestC(t *testing.T) { if missed("c") { t.Fail() } }`,
			"3 tests failed, and no more than 2 may have one",
		},
		"by its name": {
			`func TestLedger(t *testing.T) { t.Run("of mails", func(t *testing.T) { if missed("ledger") { t.Fail() } }) }`,
			"example.com/m TestLedger/of_mails never has one",
		},
		"by what it said": {
			`func TestLoad(t *testing.T) { if missed("load") { t.Error("1 acknowledged and lost") } }`,
			"example.com/m TestLoad never has one",
		},
		"a data race": {
			`func TestRaces(t *testing.T) { if missed("races") { fmt.Println("WARNING: DATA RACE"); t.Fail() } }`,
			"a data race was seen in example.com/m",
		},
		"a data race that another test is said to have": {
			`func TestRaces(t *testing.T) { fmt.Println("WARNING: DATA RACE") }; func TestLate(t *testing.T) { if missed("late") { t.Fail() } }`,
			"a data race was seen in example.com/m",
		},
		"a fuzz target": {
			`func FuzzAny(f *testing.F) { f.Add(1); f.Fuzz(func(t *testing.T, n int) { if missed("fuzz") { t.Fail() } }) }`,
			"example.com/m FuzzAny/seed#0 never has one",
		},
		"a package that cannot be built": {
			`func TestLate(t *testing.T) { undefined() }`,
			"example.com/m failed without a test",
		},
		"what is left behind": {
			`func TestMain(m *testing.M) { m.Run(); if missed("main") { os.Exit(1) } }; func TestGood(t *testing.T) {}`,
			"example.com/m failed without a test",
		},
		"a panic": {
			`func TestPanics(t *testing.T) { if missed("panics") { panic("out of order") } }; func TestAfter(t *testing.T) {}`,
			"example.com/m ended in the middle of its tests",
		},
		"an exit": {
			`func TestExits(t *testing.T) { if missed("exits") { os.Exit(3) } }; func TestAfter(t *testing.T) {}`,
			"example.com/m ended in the middle of its tests",
		},
	}
	for what, test := range tests {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := again(t, options{never: regexp.MustCompile(`/m TestLedger/of.mails|and lost`)}, test.tests)
			require.NotZero(t, s.status)
			require.True(t, strings.HasSuffix(s.told, "=== NO SECOND CHANCE: "+test.why+"\n"), s.told)
			require.NotContains(t, s.out, "AGAIN")
			require.Empty(t, s.alone)
		})
	}
}

func TestFlagsAreToldFromPackages(t *testing.T) {
	c := chance{pkg: "example.com/m/a", tests: []string{"TestA"}}
	require.Equal(t, []string{"go", "-C", "m", "test", "-race", "-p=1", "-run=^(TestA)$", "-count=1", "example.com/m/a"},
		c.command([]string{"go", "-C", "m", "test", "-race", "-p=1", "./a", "example.com/m/b"}))
	c.whole = true
	require.Equal(t, []string{"go", "test", "-run=B", "-count=1", "example.com/m/a"}, c.command([]string{"go", "test", "-run=B"}))

	_, err := options{again: 1}.run(t.Context(), []string{"go", "test", "-p", "1", "-race", "./a"}, nil, nil)
	require.ErrorContains(t, err, `"1" is before a flag`)
}
