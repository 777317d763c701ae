package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/mesh"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func instance(id string, status mesh.Status, load float64) mesh.Endpoint {
	return mesh.Endpoint{AppID: "orders", InstanceID: id, Host: "10.0.0.1", Port: 80, Status: status, LoadPercent: load, LastSeen: noon,
		CurrentConnections: 3, MaxConnections: 50, Services: []string{"cart"}}
}

func TestChangesAsLines(t *testing.T) {
	var out, errs bytes.Buffer
	l := newChangeLog(&stdio{out: &out, err: &errs}, false)
	moved := instance("b", mesh.StatusHealthy, 7)
	moved.Port = 81
	for i, look := range []struct {
		endpoints []mesh.Endpoint
		failure   error
	}{
		{endpoints: []mesh.Endpoint{instance("a", mesh.StatusHealthy, 1)}},
		{endpoints: []mesh.Endpoint{instance("a", mesh.StatusHealthy, 99), instance("b", mesh.StatusHealthy, 1)}},
		{failure: errors.New("no node answers")},
		{failure: errors.New("no node answers")},
		{endpoints: []mesh.Endpoint{instance("a", mesh.StatusShuttingDown, 1), moved}},
		{endpoints: []mesh.Endpoint{moved}},
		{endpoints: []mesh.Endpoint{moved}},
	} {
		require.NoError(t, l.show(noon.Add(time.Duration(i)*time.Second), look.endpoints, look.failure))
	}
	require.NoError(t, l.end())
	require.Equal(t, `12:00:00 present orders a 10.0.0.1:80 healthy
12:00:01 joined  orders b 10.0.0.1:80 healthy
12:00:04 changed orders a 10.0.0.1:80 shuttingDown (was healthy)
12:00:04 changed orders b 10.0.0.1:81 healthy
12:00:05 left    orders a 10.0.0.1:80 shuttingDown
`, out.String())
	require.Equal(t, "bannou: no node answers; still watching\nbannou: the node answers again\n", errs.String(), "once each")
}

func TestChangesAsJSON(t *testing.T) {
	var out bytes.Buffer
	l := newChangeLog(&stdio{out: &out, err: &out}, true)
	require.NoError(t, l.show(noon, []mesh.Endpoint{instance("a", mesh.StatusHealthy, 1)}, nil))
	require.NoError(t, l.show(noon, []mesh.Endpoint{instance("a", mesh.StatusDegraded, 1)}, nil))
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	require.Len(t, lines, 2)
	var c change
	require.NoError(t, json.Unmarshal([]byte(lines[1]), &c))
	require.Equal(t, change{At: noon, Change: "changed", Was: mesh.StatusHealthy, Endpoint: instance("a", mesh.StatusDegraded, 1)}, c)
}

func TestLiveTable(t *testing.T) {
	var out bytes.Buffer
	l := newLiveTable(&out, "http://node:3500")
	screen := func(endpoints []mesh.Endpoint, failure error) []string {
		out.Reset()
		require.NoError(t, l.show(noon.Add(4*time.Second), endpoints, failure))
		require.True(t, strings.HasSuffix(out.String(), clearBelow), "what was longer before is wiped")
		text := strings.NewReplacer(secondScreen, "", clearRest, "", toHome, "", clearBelow, "").Replace(out.String())
		return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	}
	first := screen([]mesh.Endpoint{instance("a", mesh.StatusHealthy, 12), instance("b", mesh.StatusDegraded, 0)}, nil)
	require.Contains(t, out.String(), secondScreen)
	require.Equal(t, []string{
		"http://node:3500  12:00:04  2 endpoints",
		"",
		"APP-ID  INSTANCE  ADDRESS      STATUS    LOAD  REQUESTS  SEEN    SERVICES",
		"orders  a         10.0.0.1:80  healthy   12%   3/50      4s ago  cart",
		"orders  b         10.0.0.1:80  degraded  0%    3/50      4s ago  cart",
	}, first)
	away := screen(nil, errors.New("no node answers \x1b[2J"))
	require.NotContains(t, out.String(), secondScreen, "once")
	require.Equal(t, "http://node:3500  last seen at 12:00:04: no node answers \ufffd[2J", away[0])
	require.Equal(t, first[1:], away[1:], "what was seen last stays")

	l.height = func() int { return 5 }
	require.Equal(t, "and 2 more: name an app-id to see fewer", screen(nil, errors.New("away"))[3], "the head stays on the screen")
	out.Reset()
	require.NoError(t, l.end())
	require.True(t, strings.HasPrefix(out.String(), firstScreen+"APP-ID"), "the last table stays on the first screen")
}

// A watch outlives its node's absence, but not a wrong address; and it ends when it is asked to.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looks := 0
		away := errors.New("no node answers")
		w := watcher{every: time.Second, fetch: func(context.Context) ([]mesh.Endpoint, error) {
			if looks++; looks == 2 {
				return nil, away
			}
			return []mesh.Endpoint{instance("a", mesh.StatusHealthy, 1)}, nil
		}}
		var out, errs bytes.Buffer
		ctx, interrupt := context.WithTimeout(t.Context(), 3500*time.Millisecond)
		defer interrupt()
		require.NoError(t, w.run(ctx, newChangeLog(&stdio{out: &out, err: &errs}, false)))
		require.Equal(t, 4, looks)
		require.Equal(t, 1, strings.Count(out.String(), "\n"), "nothing changed")

		looks = 1
		require.ErrorIs(t, w.run(t.Context(), newChangeLog(&stdio{out: &out, err: &errs}, false)), away)
		hangs := watcher{fetch: func(ctx context.Context) ([]mesh.Endpoint, error) { <-ctx.Done(); return nil, ctx.Err() }}
		begin := time.Now()
		require.Error(t, hangs.run(t.Context(), newChangeLog(&stdio{out: &out, err: &errs}, false)))
		require.Equal(t, watchTimeout, time.Since(begin))
	})
}

func TestRoutesOfServices(t *testing.T) {
	at := func(app, id string, port int, status mesh.Status, services ...string) mesh.Endpoint {
		return mesh.Endpoint{AppID: app, InstanceID: id, Host: "h", Port: port, Status: status, Services: services}
	}
	all := []mesh.Endpoint{
		at("bannou", "1", 1, mesh.StatusHealthy, "state", "mesh"),
		at("bannou", "2", 2, mesh.StatusHealthy, "state"),
		at("bannou", "3", 3, mesh.StatusShuttingDown, "state"),
		at("arena", "4", 4, mesh.StatusDegraded, "game"),
	}
	m := mesh.Mappings{Services: map[string]string{"game": "arena", "npc": "nowhere"}, Version: 7}
	var lines []string
	for _, r := range routesOf(m, all, "").Routes {
		lines = append(lines, strings.Join([]string{r.Service, r.AppID, takers(r.Endpoints)}, " "))
	}
	require.Equal(t, []string{"game arena h:4 (degraded)", "mesh bannou h:1", "npc nowhere none", "state bannou h:1, h:2"}, lines)
	one := routesOf(m, all, "game")
	require.Len(t, one.Routes, 1)
	require.True(t, one.Routes[0].Mapped)
	require.Equal(t, "bannou", one.DefaultAppID)
	require.EqualValues(t, 7, one.Version)
}
