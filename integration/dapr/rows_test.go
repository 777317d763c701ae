package dapr_test

import (
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/redisstate"
)

// A store in Redis is read and written in place by daprd, by the facade and by a native store with the prefix "app||", whoever wrote last; each takes the
// ETag that it read, and refuses it when another has written since.
func TestSameRowsInRedis(t *testing.T) {
	resources := components(t)
	sides := map[string]*side{"facade": newFacade(t, resources, newApp(t, "[]")), "dapr": newDaprd(t, resources, newApp(t, "[]"))}
	native := openNative(t, resources[0])
	keys := []string{}
	for writer, s := range sides {
		key := "by-" + writer
		keys = append(keys, key)
		require.Equal(t, "204", s.call("POST", stateOf+"redis", `[{"key":"`+key+`","value":{"by":"`+writer+`"}}]`))
		for reader, r := range sides {
			require.Equal(t, `200 {"by":"`+writer+`"}`, r.call("GET", stateOf+"redis/"+key, ""), "%s reads what %s wrote", reader, writer)
		}
		value, err := native.Get(t.Context(), key)
		require.NoError(t, err)
		require.Equal(t, `{"by":"`+writer+`"}`, string(value))
	}
	for _, key := range keys {
		theirs, ours := sides["dapr"].etag("redis", key), sides["facade"].etag("redis", key)
		change := func(s *side, etag string) string {
			return s.code("POST", stateOf+"redis", `[{"key":"`+key+`","value":1,"etag":"`+etag+`"}]`)
		}
		require.Equal(t, "204", change(sides["facade"], ours))
		require.Equal(t, "409 ERR_STATE_SAVE", change(sides["dapr"], theirs), "daprd sees that the facade wrote")
		theirs, ours = sides["dapr"].etag("redis", key), sides["facade"].etag("redis", key)
		require.Equal(t, "204", change(sides["dapr"], theirs))
		require.Equal(t, "409 ERR_STATE_SAVE", change(sides["facade"], ours), "and the facade that daprd wrote")
		require.Equal(t, "204", sides["dapr"].call("DELETE", stateOf+"redis/"+key, ""))
		require.Equal(t, "204", sides["facade"].call("GET", stateOf+"redis/"+key, ""), "it is gone")
	}
}

// openNative opens the rows of the component as a store of the library.
func openNative(t *testing.T, component string) *state.Store[jsontext.Value] {
	t.Helper()
	value := func(name string) string {
		_, after, _ := strings.Cut(component, "name: "+name+"\n    value: \"")
		text, _, _ := strings.Cut(after, `"`)
		return text
	}
	address := "redis://:" + value("redisPassword") + "@" + value("redisHost") + "/" + value("redisDB")
	_, err := redis.ParseURL(address)
	require.NoError(t, err)
	driver, err := redisstate.New(redisstate.Config{URLs: []string{address}})
	require.NoError(t, err)
	factory, err := state.NewFactory([]state.StoreConfig{{Name: "rows", Backend: "redis", KeyPrefix: "app||"}}, []state.Driver{driver}, state.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, factory.Close()) })
	store, err := state.Open[jsontext.Value](t.Context(), factory, "rows")
	require.NoError(t, err)
	return store
}
