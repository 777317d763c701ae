package state_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/memorystate"
	statesvc "github.com/bannou-mesh/bannou/services/state"
)

// What a short request asks for does not grow with it without end: a key that is named again is read once, and an answer has a bound.
func TestAnswersAreBounded(t *testing.T) {
	driver := &largeDriver{Driver: memorystate.New()}
	factory, err := state.NewFactory([]state.StoreConfig{{Name: "large", Backend: "memory"}}, []state.Driver{driver}, state.Options{})
	require.NoError(t, err)
	service, err := statesvc.New(statesvc.Config{Factory: factory})
	require.NoError(t, err)
	n := serve(t, service, factory.Close)
	n.must("/state/save", `{"storeName":"large","key":"small","value":7}`)
	n.must("/state/save", `{"storeName":"large","key":"large","value":"`+strings.Repeat("v", state.MaxValueBytes-2)+`"}`)

	items := n.must("/state/bulk-get", `{"storeName":"large","keys":["small","absent","small","small"]}`)["items"].([]any)
	require.Equal(t, []string{"small", "absent"}, driver.asked, "each once")
	require.Len(t, items, 4)
	for i, key := range []string{"small", "absent", "small", "small"} {
		require.Equal(t, key, items[i].(object)["key"])
		require.Equal(t, key == "small", items[i].(object)["found"])
	}
	require.Equal(t, items[0], items[3])

	many := strings.Repeat(`,"large"`, 16)
	for _, c := range []struct{ path, body, member string }{
		{"bulk-get", `"keys":["large"` + many + `]`, "keys"},
		{"query", `"filter":{},"pageSize":17`, "pageSize"},
		{"query", `"filter":{},"pageSize":17,"cursor":""`, "pageSize"},
	} {
		status, _, problem := n.post("/state/"+c.path, `{"storeName":"large",`+c.body+`}`)
		require.Equal(t, 400, status, "%s", c.path)
		require.Equal(t, "invalid_member", problem["code"])
		require.Equal(t, c.member, problem["member"])
		require.Contains(t, problem["detail"], "ask for fewer")
	}
	n.must("/state/query", `{"storeName":"large","filter":{},"pageSize":1}`)
}

// largeDriver finds large values by any query, as many as are asked for, and tells which keys are read.
type largeDriver struct {
	state.Driver
	asked []string
}

func (d *largeDriver) Open(ctx context.Context, cfg state.StoreConfig) (state.Engine, error) {
	e, err := d.Driver.Open(ctx, cfg)
	return &largeEngine{e, d}, err
}

type largeEngine struct {
	state.Engine
	driver *largeDriver
}

func (e *largeEngine) Get(ctx context.Context, keys []string) ([]state.Record, error) {
	e.driver.asked = keys
	return e.Engine.Get(ctx, keys)
}

func (e *largeEngine) Query(ctx context.Context, q state.Query) ([]state.Record, error) {
	records, err := e.Engine.Get(ctx, []string{"large"})
	if err != nil {
		return nil, err
	}
	found := make([]state.Record, q.Limit)
	for i := range found {
		found[i] = records[0]
		found[i].Key = fmt.Sprint(i)
	}
	return found, nil
}

func (e *largeEngine) Count(context.Context, state.Filter) (int64, error) { return 17, nil }
