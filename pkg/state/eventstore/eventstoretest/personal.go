package eventstoretest

import (
	"context"
	"encoding/base64"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// What happens to a member of a club.
type (
	joined struct {
		Person  string `json:"person" personal:"subject"`
		Name    string `json:"name" personal:"data"`
		Address struct {
			Street string `json:"street" personal:"data"`
			City   string `json:"city"`
		} `json:"address"`
		Fee int `json:"fee"`
	}
	paid struct{ Fee int }
)

type member struct {
	Name, Street, City string
	Fees               int
}

func members(t testing.TB, s *eventstore.Store, policy eventstore.SnapshotPolicy) *eventstore.Aggregate[member] {
	t.Helper()
	types, err := eventstore.NewTypes(eventstore.TypeOf[joined]("joined", 1), eventstore.TypeOf[paid]("paid", 1))
	require.NoError(t, err)
	a, err := eventstore.NewAggregate(s, eventstore.AggregateConfig[member]{Category: "member", Types: types, Snapshots: policy, Apply: func(m *member, event any) error {
		switch e := event.(type) {
		case joined:
			m.Name, m.Street, m.City, m.Fees = e.Name, e.Address.Street, e.Address.City, m.Fees+e.Fee
		case paid:
			m.Fees += e.Fee
		}
		return nil
	}})
	require.NoError(t, err)
	return a
}

func join(t testing.TB, a *eventstore.Aggregate[member], id, person, name string) {
	t.Helper()
	_, err := a.Decide(t.Context(), id, func(eventstore.Loaded[member]) ([]any, error) {
		e := joined{Person: person, Name: name, Fee: 10}
		e.Address.Street, e.Address.City = "Street of "+name, "York"
		return []any{e}, nil
	})
	require.NoError(t, err)
}

func pay(t testing.TB, a *eventstore.Aggregate[member], id string) eventstore.Loaded[member] {
	t.Helper()
	after, err := a.Decide(t.Context(), id, func(eventstore.Loaded[member]) ([]any, error) { return []any{paid{Fee: 1}}, nil })
	require.NoError(t, err)
	return after
}

// personal is an event whose members name and address.street are about a subject.
func personal(subject, data string) eventstore.Event {
	return eventstore.Event{Type: "x", Data: jsontext.Value(data),
		Personal: eventstore.Personal{Subject: subject, Members: []jsontext.Pointer{"/name", "/address/street", "/none"}}}
}

const ofAda = ` { "id": 1.10, "name": {"first":"Ada", "nick": [null, "A\u0064a"]}, "address": {"city":"York","street":"Long Lane"}, "none":null } `

// raw is what the engine has of an event.
func raw(t testing.TB, s *eventstore.Store, position int64) eventstore.Recorded {
	t.Helper()
	events, _, err := s.Engine().Read(t.Context(), eventstore.Range{From: position, Limit: 1})
	require.NoError(t, err)
	require.Len(t, events, 1)
	return events[0]
}

// Readers see what was appended, to the byte. The database does not.
func personalEncrypted(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	mustAppend(t, s, stream("a"), 0, personal("ada", ofAda), event("y"))
	mustAppend(t, s, stream("a"), 2, personal("", `{"name":"Bob"}`))
	kept := raw(t, s, 1)
	for _, secret := range []string{"Ada", "u0064", "Long Lane", "nick"} {
		require.NotContains(t, string(kept.Data), secret)
	}
	require.Contains(t, string(kept.Data), `"city":"York"`)
	require.NotContains(t, string(raw(t, s, 3).Data), "Bob")

	all := CheckOrder(t, s)
	require.Equal(t, ofAda, string(all[0].Data))
	require.Equal(t, `{"name":"Bob"}`, string(all[2].Data))
	for _, e := range all {
		require.Zero(t, e.Metadata)
		require.Zero(t, e.Personal)
		require.Empty(t, e.Erased)
	}
	found, err := s.Erase(t.Context(), "test/a") // the stream is the subject where none is named
	require.NoError(t, err)
	require.True(t, found)
	all = CheckOrder(t, s)
	require.Equal(t, ofAda, string(all[0].Data))
	require.Equal(t, `{"name":null}`, string(all[2].Data))
}

// What was erased is null wherever it is read, and all else as it was.
func erased(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	a := members(t, s, eventstore.SnapshotPolicy{})
	mustAppend(t, s, stream("a"), 0, personal("ada", ofAda))
	join(t, a, "m-1", "ada", "Ada")
	join(t, a, "m-2", "bob", "Bob")
	found, err := s.Erase(t.Context(), "ada")
	require.NoError(t, err)
	require.True(t, found)

	all := CheckOrder(t, s)
	require.Equal(t, ` { "id": 1.10, "name": null, "address": {"city":"York","street":null}, "none":null } `, string(all[0].Data))
	require.Equal(t, []jsontext.Pointer{"/name", "/address/street"}, all[0].Erased)
	require.Empty(t, all[2].Erased)
	loaded, err := a.Load(t.Context(), "m-1")
	require.NoError(t, err)
	require.Equal(t, eventstore.Loaded[member]{State: member{City: "York", Fees: 10}, Version: 1}, loaded)
	loaded, err = a.Load(t.Context(), "m-2")
	require.NoError(t, err)
	require.Equal(t, member{Name: "Bob", Street: "Street of Bob", City: "York", Fees: 10}, loaded.State)
	require.Equal(t, 11, pay(t, a, "m-1").State.Fees)

	var seen []string
	done := make(chan struct{})
	sub, err := s.Subscribe(eventstore.SubscriptionConfig{Name: "sub", Handle: func(_ context.Context, e eventstore.Recorded) error {
		if seen = append(seen, string(e.Data)); len(seen) == 4 {
			close(done)
		}
		return nil
	}})
	require.NoError(t, err)
	<-done
	require.NoError(t, sub.Close(t.Context()))
	require.NotContains(t, strings.Join(seen[:2], ""), "Ada")
	require.Contains(t, seen[2], "Bob")

	found, err = s.Erase(t.Context(), "ada")
	require.NoError(t, err)
	require.False(t, found, "there is nothing left")
	mustAppend(t, s, stream("a"), 1, personal("ada", `{"name":"Ada"}`)) // a new key
	all = collect(t, s.ReadStream(t.Context(), stream("a"), eventstore.ReadOptions{}))
	require.Len(t, all[0].Erased, 2)
	require.Equal(t, `{"name":"Ada"}`, string(all[1].Data))
}

// Another process reads what was erased no longer than its cache of keys lives.
func erasedElsewhere(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	asks := eventstore.New(s.Engine(), eventstore.Config{KeyCache: -1})
	caches := eventstore.New(s.Engine(), eventstore.Config{KeyCache: time.Millisecond})
	keeps := eventstore.New(s.Engine(), eventstore.Config{KeyCache: time.Hour})
	mustAppend(t, s, stream("a"), 0, personal("ada", ofAda))
	for _, other := range []*eventstore.Store{asks, caches, keeps} {
		require.Equal(t, ofAda, string(CheckOrder(t, other)[0].Data))
	}
	_, err := s.Erase(t.Context(), "ada")
	require.NoError(t, err)
	require.NotEmpty(t, CheckOrder(t, asks)[0].Erased)
	require.Eventually(t, func() bool {
		for e, err := range caches.ReadAll(t.Context(), eventstore.ReadOptions{}) {
			return err == nil && len(e.Erased) > 0
		}
		return false
	}, patience, time.Millisecond)
	require.Empty(t, CheckOrder(t, keeps)[0].Erased, "the bound is what is configured")

	// What it appends is not encrypted with the key that it has in memory.
	mustAppend(t, keeps, stream("a"), 1, personal("ada", `{"name":"Ada"}`))
	require.Equal(t, `{"name":"Ada"}`, string(CheckOrder(t, s)[1].Data))
}

// A snapshot holds nothing that outlives an erasure.
func erasedSnapshots(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	a := members(t, s, eventstore.SnapshotPolicy{Events: 1})
	id := eventstore.StreamID{Category: "member", ID: "m"}
	join(t, a, "m", "ada", "Ada")
	pay(t, a, "m") // the snapshot before it is read, and a further one taken
	snapshot, found, err := s.Engine().LoadSnapshot(t.Context(), id, 1)
	require.NoError(t, err)
	require.True(t, found)
	require.EqualValues(t, 2, snapshot.Version)
	require.NotContains(t, string(snapshot.Data), "Ada")
	loaded, err := a.Load(t.Context(), "m")
	require.NoError(t, err)
	require.Equal(t, eventstore.Loaded[member]{State: member{Name: "Ada", Street: "Street of Ada", City: "York", Fees: 11}, Version: 2}, loaded)
	own, found, err := s.LoadSnapshot(t.Context(), id, 1)
	require.NoError(t, err)
	require.True(t, found)
	require.Contains(t, string(own.Data), "Ada")

	_, err = s.Erase(t.Context(), "ada")
	require.NoError(t, err)
	_, found, err = s.LoadSnapshot(t.Context(), id, 1)
	require.NoError(t, err)
	require.False(t, found)
	loaded, err = a.Load(t.Context(), "m")
	require.NoError(t, err)
	require.Equal(t, eventstore.Loaded[member]{State: member{City: "York", Fees: 11}, Version: 2}, loaded)
	require.Equal(t, 12, pay(t, a, "m").State.Fees)
	snapshot, _, err = s.Engine().LoadSnapshot(t.Context(), id, 1)
	require.NoError(t, err)
	require.EqualValues(t, 3, snapshot.Version)
	require.JSONEq(t, `{"Name":"","Street":"","City":"York","Fees":12}`, string(snapshot.Data), "there is nothing personal in it")

	// With two subjects there is none.
	join(t, a, "two", "bob", "Bob")
	join(t, a, "two", "eve", "Eve")
	snapshot, _, err = s.Engine().LoadSnapshot(t.Context(), eventstore.StreamID{Category: "member", ID: "two"}, 1)
	require.NoError(t, err)
	require.EqualValues(t, 1, snapshot.Version)

	require.NoError(t, s.SaveSnapshot(t.Context(), id, 7, 3, jsontext.Value(`{"name":"Ada"}`), "ada"))
	own, _, err = s.LoadSnapshot(t.Context(), id, 7)
	require.NoError(t, err)
	require.Equal(t, `{"name":"Ada"}`, string(own.Data))
	_, err = s.Erase(t.Context(), "ada")
	require.NoError(t, err)
	_, found, err = s.LoadSnapshot(t.Context(), id, 7)
	require.NoError(t, err)
	require.False(t, found)
}

// Those who write of a new subject at the same time share its key.
func oneKeyManyWriters(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	var writers sync.WaitGroup
	for i := range 16 {
		writers.Go(func() {
			if _, err := s.Append(t.Context(), stream("s-"+string(rune('a'+i))), 0, personal("ada", `{"name":"Ada"}`)); err != nil {
				t.Error(err)
			}
		})
	}
	writers.Wait()
	ids := map[string]bool{}
	for _, e := range CheckOrder(t, s) {
		require.Equal(t, `{"name":"Ada"}`, string(e.Data))
		ids[raw(t, s, e.Position).Metadata.Key] = true
	}
	require.Len(t, ids, 1)
	_, err := s.Erase(t.Context(), "ada")
	require.NoError(t, err)
	for _, e := range CheckOrder(t, s) {
		require.Equal(t, `{"name":null}`, string(e.Data))
	}
}

// What is encrypted cannot be read in another event, nor in another member.
func boundToTheirPlace(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	mustAppend(t, s, stream("a"), 0, personal("ada", `{"name":"Ada","other":""}`))
	kept := raw(t, s, 1)
	for name, forged := range map[string]eventstore.Event{
		"another event":  {ID: uuid.NewString(), Type: "x", Schema: 1, Data: kept.Data, Metadata: kept.Metadata},
		"another member": {ID: uuid.NewString(), Type: "x", Schema: 1, Data: jsontext.Value(strings.Replace(string(kept.Data), `"name"`, `"nick"`, 1)), Metadata: kept.Metadata},
		"no base64":      {ID: uuid.NewString(), Type: "x", Schema: 1, Data: jsontext.Value(`{"name":"$sealed:?"}`), Metadata: kept.Metadata},
		"cut short":      {ID: uuid.NewString(), Type: "x", Schema: 1, Data: jsontext.Value(`{"name":"$sealed:AAAA"}`), Metadata: kept.Metadata},
	} {
		_, err := s.Engine().Append(t.Context(), []eventstore.Append{{Stream: stream(name), Expected: 0, Events: []eventstore.Event{forged}}})
		require.NoError(t, err)
		for _, err := range s.ReadStream(t.Context(), stream(name), eventstore.ReadOptions{}) {
			require.ErrorIs(t, err, state.ErrCorrupt, name)
		}
	}
	// Where nothing is personal, a text that looks like it is a text.
	mustAppend(t, s, stream("b"), 0, eventstore.Event{Type: "x", Data: jsontext.Value(`{"name":"$sealed:AAAA"}`)})
	require.Equal(t, `{"name":"$sealed:AAAA"}`, string(collect(t, s.ReadStream(t.Context(), stream("b"), eventstore.ReadOptions{}))[0].Data))
}

func badPersonal(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	for name, e := range map[string]eventstore.Event{
		"no pointer":       {Type: "x", Data: jsontext.Value(`{}`), Personal: eventstore.Personal{Members: []jsontext.Pointer{"name"}}},
		"the whole":        {Type: "x", Data: jsontext.Value(`{}`), Personal: eventstore.Personal{Members: []jsontext.Pointer{""}}},
		"a long subject":   personal(strings.Repeat("x", eventstore.MaxSubjectBytes+1), `{}`),
		"no UTF-8":         personal("\xff", `{}`),
		"a key of its own": {Type: "x", Data: jsontext.Value(`{}`), Metadata: eventstore.Metadata{Key: uuid.NewString()}},
		"a sealed text":    personal("ada", `{"name":"Ada","other":["$sealed:AAAA"]}`),
	} {
		_, err := s.Append(t.Context(), stream("a"), eventstore.Any, e)
		require.ErrorIs(t, err, state.ErrInvalid, name)
	}
	_, err := s.Erase(t.Context(), "")
	require.ErrorIs(t, err, state.ErrInvalid)
	_, err = s.Rewrap(t.Context())
	require.ErrorIs(t, err, state.ErrUnsupported)
	require.Empty(t, CheckOrder(t, s))
}

// Keys are wrapped with the first master key, read with all, and can be wrapped anew.
func masterKeys(t *testing.T, open Open) {
	key := func(fill byte) string { return base64.StdEncoding.EncodeToString(slices.Repeat([]byte{fill}, 32)) }
	with := func(s *eventstore.Store, lines ...string) *eventstore.Store {
		cfg := eventstore.Config{KeyCache: -1}
		if len(lines) > 0 {
			var err error
			cfg.MasterKeys, err = eventstore.ParseMasterKeys(strings.Join(lines, "\n") + "\n")
			require.NoError(t, err)
		}
		return eventstore.New(s.Engine(), cfg)
	}
	none := open(t, eventstore.Config{KeyCache: -1})
	mustAppend(t, none, stream("a"), 0, personal("ada", ofAda))
	first := with(none, key(1))
	mustAppend(t, first, stream("b"), 0, personal("bob", `{"name":"Bob"}`))
	readable := func(s *eventstore.Store) {
		t.Helper()
		all := CheckOrder(t, s)
		require.Equal(t, ofAda, string(all[0].Data))
		require.Equal(t, `{"name":"Bob"}`, string(all[1].Data))
	}
	unreadable := func(s *eventstore.Store) {
		t.Helper()
		for _, err := range s.ReadStream(t.Context(), stream("b"), eventstore.ReadOptions{}) {
			require.ErrorIs(t, err, state.ErrUnavailable)
			require.ErrorIs(t, err, eventstore.ErrNoMasterKey)
		}
	}
	readable(first)
	unreadable(none)
	unreadable(with(none, key(2)))

	rotating := with(none, key(2), key(1))
	readable(rotating)
	for _, want := range []int{2, 0} {
		n, err := rotating.Rewrap(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, n)
	}
	readable(rotating)
	readable(with(none, key(2)))
	unreadable(first)
	found, err := none.Erase(t.Context(), "bob")
	require.NoError(t, err)
	require.True(t, found, "who has no master key can erase")
	for e, err := range with(none, key(2)).ReadStream(t.Context(), stream("b"), eventstore.ReadOptions{}) {
		require.NoError(t, err)
		require.NotEmpty(t, e.Erased)
	}
}
