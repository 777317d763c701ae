package eventstoretest_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/eventstoretest"
)

type item struct {
	Price int `json:"price"`
}

// The forms that an event has in the life of a program.
type (
	ordered1 struct {
		Items []item            `json:"items"`
		At    time.Time         `json:"at"`
		Notes map[string]string `json:"notes,omitzero"`
	}
	ordered1Added struct {
		ordered1
		By string `json:"by"`
	}
	orderedRenamed struct {
		Items  []item            `json:"items"`
		Placed time.Time         `json:"placed"`
		Notes  map[string]string `json:"notes,omitzero"`
	}
	orderedKind struct {
		Items []struct {
			Price string `json:"price"`
		} `json:"items"`
		At    time.Time         `json:"at"`
		Notes map[string]string `json:"notes,omitzero"`
	}
)

func typesOf(t *testing.T, kind *eventstore.Type) *eventstore.Types {
	t.Helper()
	types, err := eventstore.NewTypes(kind)
	require.NoError(t, err)
	return types
}

// An incompatible change of a published form is refused, until it has a version of its own and an upcaster.
func TestGolden(t *testing.T) {
	folder := t.TempDir()
	first := typesOf(t, eventstore.TypeOf[ordered1]("ordered", 1))
	sample := ordered1{Items: []item{{Price: 7}}, At: time.Unix(1, 0).UTC()}
	require.ErrorContains(t, eventstoretest.CheckGolden(first, folder, false, sample), "missing")
	require.ErrorContains(t, eventstoretest.CheckGolden(first, folder, true), "no sample")
	require.NoError(t, eventstoretest.CheckGolden(first, folder, true, sample))
	eventstoretest.Golden(t, first, folder, false)

	added := typesOf(t, eventstore.TypeOf[ordered1Added]("ordered", 1))
	require.ErrorContains(t, eventstoretest.CheckGolden(added, folder, false), `"by" is new`)

	for _, update := range []bool{false, true} {
		require.ErrorContains(t, eventstoretest.CheckGolden(typesOf(t, eventstore.TypeOf[orderedRenamed]("ordered", 1)), folder, update),
			`member "at" was published as time.Time and is gone: raise the schema to 2, with an upcaster from 1`)
		require.ErrorContains(t, eventstoretest.CheckGolden(typesOf(t, eventstore.TypeOf[orderedKind]("ordered", 1)), folder, update),
			"does not fit", "the golden event cannot be read")
	}

	_, err := eventstore.NewTypes(eventstore.TypeOf[orderedRenamed]("ordered", 2))
	require.ErrorContains(t, err, "no upcaster leads from 1 to 2")
	broken := typesOf(t, eventstore.TypeOf[orderedRenamed]("ordered", 2, eventstore.Upcast(1, func(data jsontext.Value) (jsontext.Value, error) { return data, nil })))
	require.NoError(t, eventstoretest.CheckGolden(typesOf(t, eventstore.TypeOf[ordered1]("ordered", 1)), folder, true), "as it was")
	require.ErrorContains(t, eventstoretest.CheckGolden(broken, folder, false), "is read as", "an upcaster that forgets the member")

	second := typesOf(t, eventstore.TypeOf[orderedRenamed]("ordered", 2, rename()))
	require.NoError(t, eventstoretest.CheckGolden(second, folder, true, orderedRenamed{Items: []item{{Price: 8}}}))
	require.NoError(t, eventstoretest.CheckGolden(second, folder, false))
	text, err := os.ReadFile(filepath.Join(folder, "ordered.v1.json"))
	require.NoError(t, err)
	require.Contains(t, string(text), `"at"`)
	require.Contains(t, string(text), `"placed"`)

	require.NoError(t, os.Remove(filepath.Join(folder, "ordered.v1.json")))
	require.ErrorContains(t, eventstoretest.CheckGolden(second, folder, true), "bring the file back")
}

// A member that a person's erasure reaches stays so: a change that has what is appended from then on outlive it is refused.
func TestGoldenKeepsWhatIsPersonal(t *testing.T) {
	type open struct {
		Name string `json:"name"`
	}
	type sealed struct {
		Name string `json:"name" personal:"data"`
	}
	folder := t.TempDir()
	before, after := typesOf(t, eventstore.TypeOf[open]("opened", 1)), typesOf(t, eventstore.TypeOf[sealed]("opened", 1))
	require.NoError(t, eventstoretest.CheckGolden(before, folder, true, open{"Ada"}))
	require.ErrorContains(t, eventstoretest.CheckGolden(after, folder, false), `"name" is new, or personal from now on, which is compatible`)
	require.NoError(t, eventstoretest.CheckGolden(after, folder, true))
	require.NoError(t, eventstoretest.CheckGolden(after, folder, false))
	for _, update := range []bool{false, true} {
		require.EqualError(t, eventstoretest.CheckGolden(before, folder, update), `event "opened", schema 1: member "name" was published as string, personal and is string: `+
			"raise the schema to 2, with an upcaster from 1")
	}
}

func rename() eventstore.Upcaster {
	return eventstore.Upcast(1, func(data jsontext.Value) (jsontext.Value, error) {
		return jsontext.Value(`{"items":[{"price":7}],"placed":"1970-01-01T00:00:01Z"}`), nil
	})
}
