package statetest

import (
	"crypto/rand"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// Features declares what a driver can do and how the suite reaches behind it.
type Features struct {
	// Query is set when the engines are state.Queriers: then Run includes RunQueries.
	Query bool

	// QueryRounds is how often random queries are compared with a plain evaluation; 0: 5 times. With -short it is
	// once.
	QueryRounds int

	// AnyKeys is set when Transact takes any keys. Without it they must share a hash tag, and the suite checks that
	// others are refused.
	AnyKeys bool

	// Depth is how deep arrays and objects may be nested in a value; a deeper one is refused with ErrInvalid. 0: 100 at
	// least.
	Depth int

	// FloatRange is set when numbers beyond the range of a 64-bit float are refused with ErrInvalid. Without it they come back as they
	// were written.
	FloatRange bool

	// Rewrites is set when the engine keeps a value, not its text: members may come back in another order, and strings with other escapes.
	// Numbers come back to the digit.
	Rewrites bool

	// WholeSeconds is set when the engine rounds the time at which a key expires up to a whole second.
	WholeSeconds bool

	// ExpiryAtBegin is set when a change decides by the time at which its transaction began whether a key has expired. Then a change that
	// is under way when a key expires may still find it, though others have seen that it is gone.
	ExpiryAtBegin bool

	// Missing are the promises that the driver cannot keep, each with the reason. A case that is about one of them checks what is said there
	// instead, or is skipped with the reason.
	Missing map[Promise]string

	// Reopen closes d and opens another driver on the same data. Nil: the data does not outlive the driver.
	Reopen func(t *testing.T, d state.Driver) state.Driver

	// Corrupt replaces the stored JSON of a key by other text, past the driver. Nil: there is no way to.
	Corrupt func(t *testing.T, d state.Driver, store, key, text string)
}

// Run checks that a driver keeps the promises of package state. open returns a driver on empty data, which the test
// that asked for it closes (t.Cleanup). Most cases share one driver, each with stores of its own.
func Run(t *testing.T, open func(t *testing.T) state.Driver, f Features) {
	checkDeclared(t, f)
	s := &suite{driver: open(t), features: f, open: open}
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) { c.run(t, s) })
	}
	if f.Query {
		t.Run("queries", func(t *testing.T) { RunQueries(t, open, f.QueryRounds) })
	}
}

// cases in the order in which a reader would want to see them fail.
func cases() []testCase {
	return []testCase{
		{"save, read, delete", saveReadDelete},
		{"versions and times", versionsAndTimes},
		{"bad arguments", badArguments},
		{"unusual keys", unusualKeys},
		{"values survive to the digit", valuesSurvive},
		{"typed values", typedValues},
		{"largest value", largestValue},
		{"callers own their bytes", callersOwnTheirBytes},
		{"stores are apart", storesAreApart},
		{"count of keys", countOfKeys},
		{"walk meets all keys", walkMeetsAll},
		{"walk while others write", walkWhileOthersWrite},
		{"walk goes on", walkGoesOn},

		{"save on condition", saveOnCondition},
		{"delete on condition", deleteOnCondition},
		{"etags never repeat", etagsNeverRepeat},
		{"old etags stay old", oldETagsStayOld},

		{"expiry set, kept, cleared", expirySetKeptCleared},
		{"default expiry", defaultExpiry},
		{"expired is gone", expiredIsGone},
		{"expired starts anew", expiredStartsAnew},

		{"bulk read in order", bulkReadInOrder},
		{"bulk changes stand alone", bulkChangesStandAlone},
		{"bulk of nothing", bulkOfNothing},

		{"transaction", transaction},
		{"transaction that conflicts", transactionConflicts},
		{"transaction with bad arguments", transactionBadArguments},
		{"transaction over any keys", transactionAnyKeys},

		{"one creator wins", oneCreatorWins},
		{"one editor wins", oneEditorWins},
		{"unconditional saves all succeed", unconditionalSaves},
		{"counter", counter},
		{"changes form one line", changesFormOneLine},
		{"transfers keep the sum", transfersKeepTheSum},
		{"histories are linear", historiesAreLinear},

		{"lock is kept and released", lockIsKept},
		{"lock has one holder", lockExcludes},
		{"lock tokens grow", lockTokensGrow},
		{"lock tells its loss", lockLossIsTold},
		{"lock fences late writes", lockFences},
		{"lock guards transactions", lockTransacts},
		{"lock refuses bad arguments", lockBadArguments},

		{"corrupt values are errors", corruptValues},
		{"cancelled calls change nothing", cancelledCalls},
		{"changes are told", changesAreTold},
		{"reopened", reopened},
		{"closed", closed},

		{"like a map", likeAMap},
	}
}

type testCase struct {
	name string
	run  func(*testing.T, *suite)
}

// A suite is one Run.
type suite struct {
	driver   state.Driver
	features Features
	open     func(t *testing.T) state.Driver
}

// factory returns a factory of stores of the given configurations on a driver. It is not closed: the driver belongs to
// the test.
func factory(t *testing.T, d state.Driver, o state.Options, stores ...state.StoreConfig) *state.Factory {
	t.Helper()
	for i := range stores {
		stores[i].Backend = d.Backend()
	}
	f, err := state.NewFactory(stores, []state.Driver{d}, o)
	require.NoError(t, err)
	return f
}

// raw opens an empty store of its own that passes JSON through.
func (s *suite) raw(t *testing.T) *state.Store[jsontext.Value] {
	t.Helper()
	return openStore[jsontext.Value](t, s, state.StoreConfig{Name: newName()})
}

func openStore[T any](t *testing.T, s *suite, cfg state.StoreConfig) *state.Store[T] {
	t.Helper()
	store, err := state.Open[T](t.Context(), factory(t, s.driver, state.Options{}, cfg), cfg.Name)
	require.NoError(t, err)
	return store
}

// newName returns a store name that no other test has.
func newName() string { return "t-" + strings.ToLower(rand.Text()) }

// mustSave saves a value that must be taken, and returns its ETag.
func mustSave[T any](t *testing.T, s *state.Store[T], key string, v T) string {
	t.Helper()
	etag, err := s.Save(t.Context(), key, v)
	require.NoError(t, err)
	require.NotEmpty(t, etag, "an empty ETag would mean: only if absent")
	return etag
}

// requireValue checks what a key holds.
func requireValue(t *testing.T, s *state.Store[jsontext.Value], key, want string) {
	t.Helper()
	v, err := s.Get(t.Context(), key)
	require.NoError(t, err)
	require.Equal(t, want, string(v))
}

// plain is a value as it is compared: as it is written, or, where the engine rewrites values, with its members in order and its strings with
// the escapes that they need.
func (s *suite) plain(t *testing.T, value string) string {
	t.Helper()
	if !s.features.Rewrites {
		return value
	}
	v := jsontext.Value(value)
	require.NoError(t, v.Canonicalize(jsontext.CanonicalizeRawInts(false), jsontext.CanonicalizeRawFloats(false)))
	return string(v)
}

// requireKept checks that a value comes back as it was saved, or, where numbers are not kept, is refused as long as it has one that is not.
func (s *suite) requireKept(t *testing.T, store *state.Store[jsontext.Value], value string) {
	t.Helper()
	_, err := store.Save(t.Context(), "k", jsontext.Value(value))
	if !s.keeps(Numbers) && strings.ContainsAny(value, "0123456789") && errors.Is(err, state.ErrInvalid) {
		return
	}
	require.NoError(t, err, "value %s", value)
	if s.keeps(Text) {
		got, err := store.Get(t.Context(), "k")
		require.NoError(t, err)
		require.Equal(t, s.plain(t, value), s.plain(t, string(got)))
		return
	}
	got, err := store.Get(t.Context(), "k")
	require.NoError(t, err)
	require.JSONEq(t, value, string(got))
}

// requireVersion checks a version, where there are any.
func (s *suite) requireVersion(t *testing.T, want, got int64, of ...any) {
	t.Helper()
	if s.keeps(Versions) {
		require.Equal(t, want, got, of...)
	}
}

// requireLen checks how many keys there are, or that they cannot be counted.
func (s *suite) requireLen(t *testing.T, store *state.Store[jsontext.Value], want int, why ...any) {
	t.Helper()
	n, err := store.Len(t.Context())
	if !s.keeps(Counting) {
		require.ErrorIs(t, err, state.ErrUnsupported)
		return
	}
	require.NoError(t, err)
	require.EqualValues(t, want, n, why...)
}

// largest is an integer that a driver keeps, as far from 0 as can be.
func (s *suite) largest() int64 {
	if s.keeps(Numbers) {
		return math.MinInt64
	}
	return -1 << 53
}

// requireAbsent checks that every way to look finds nothing.
func requireAbsent[T any](t *testing.T, s *state.Store[T], key string) {
	t.Helper()
	_, err := s.Get(t.Context(), key)
	require.ErrorIs(t, err, state.ErrNotFound)
	exists, err := s.Exists(t.Context(), key)
	require.NoError(t, err)
	require.False(t, exists)
	entries, err := s.GetBulk(t.Context(), []string{key})
	require.NoError(t, err)
	require.Len(t, entries, 1)
	require.False(t, entries[0].Found)
	require.Equal(t, key, entries[0].Key)
}

func etag(s string) *string { return &s }
