package e2e

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// register enters an instance of an app-id that answers at a URL of this test.
func register(t *testing.T, s suite, app, instance, base string) {
	t.Helper()
	host, port, found := strings.Cut(strings.TrimPrefix(base, "http://"), ":")
	require.True(t, found)
	s.must(t, "mesh/register", object{"appId": app, "instanceId": instance, "host": host, "port": json.Number(port), "services": []string{app}})
}

// What an operator asks of a mesh: who is there, where a service's calls go, and what a node learned by calling.
func TestCommandsOfTheMesh(t *testing.T) {
	n := startNode(t, "--instance-id", "self", "--mesh-balancer", "round-robin", "--mesh-ejection-time", "1h")
	s := direct(n.url)
	good, _ := receiver(t, ok)
	bad, _ := receiver(t, func(int64) int { return http.StatusInternalServerError })
	bannou := func(args ...string) string {
		t.Helper()
		out, errs, code := run(t, append(args, "--node", n.url)...)
		require.Equal(t, 0, code, errs)
		return out
	}
	at := func(base string) string { return strings.TrimPrefix(base, "http://") }
	fields := func(text, first string) []string {
		t.Helper()
		for line := range strings.Lines(text) {
			if all := strings.Fields(line); len(all) > 0 && all[0] == first {
				return all
			}
		}
		t.Fatalf("no line begins with %s in\n%s", first, text)
		return nil
	}

	require.Equal(t, []string{"state", "bannou", "default", at(n.url)}, fields(bannou("routes"), "state"))
	register(t, s, "game", "good", good)
	register(t, s, "game", "bad", bad)
	s.must(t, "orchestrator/service-mappings/set", object{"mappings": object{"game": "game", "npc": "nowhere"}})
	routes := bannou("routes")
	require.Contains(t, routes, "mappings version 1, services that are not mapped are on bannou")
	require.ElementsMatch(t, []string{"game", "game", "mapping", at(good), at(bad)}, strings.Fields(strings.ReplaceAll(strings.Join(fields(routes, "game"), " "), ",", "")))
	require.Equal(t, []string{"npc", "nowhere", "mapping", "none"}, fields(routes, "npc"))
	var answer struct{ Version, NodeVersion int }
	require.NoError(t, json.Unmarshal([]byte(bannou("routes", "game", "-o", "json")), &answer))
	require.Equal(t, 1, answer.Version)
	require.Equal(t, 1, answer.NodeVersion)

	for range 100 {
		res, err := http.Post(n.url+"/v1.0/invoke/game/method/x", "application/json", strings.NewReader("{}"))
		require.NoError(t, err)
		res.Body.Close()
	}
	targets := bannou("targets")
	require.Contains(t, targets, "mappings version 1, read ")
	var states []string
	for line := range strings.Lines(targets) {
		if all := strings.Fields(line); all[0] == "game" {
			states = append(states, all[1]+" "+all[2])
		}
	}
	require.Equal(t, []string{"bad ejected", "good available"}, states)

	res, err := http.Get(n.url + "/metrics")
	require.NoError(t, err)
	defer res.Body.Close()
	metrics, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Contains(t, string(metrics), "\nbannou_mesh_directory_age_seconds")
	require.Contains(t, string(metrics), "\nbannou_mesh_mappings_version")
	one := fields(bannou("endpoints"), "bannou")
	require.Equal(t, []string{"bannou", "self", at(n.url), "healthy"}, one[:4])
	_, errs, code := run(t, "endpoints", "--watch", "--node", "http://"+freeAddress(t))
	require.Equal(t, 1, code)
	require.Contains(t, errs, "no node answers")
}

// Without a terminal `endpoints --watch` prints who is there and then a line for each change, until it is interrupted.
func TestWatchingEndpoints(t *testing.T) {
	n := startNode(t, "--instance-id", "self")
	s := direct(n.url)
	base, _ := receiver(t, ok)
	cmd := exec.Command(binary, "endpoints", "--watch", "--every", "20ms", "--node", n.url)
	cmd.Env = cleanEnvironment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	defer func() { _ = cmd.Process.Kill() }()
	lines := make(chan string)
	go func() {
		defer close(lines)
		for scan := bufio.NewScanner(out); scan.Scan(); {
			_, text, _ := strings.Cut(scan.Text(), " ") // without the time
			lines <- text
		}
	}()
	next := func() string {
		select {
		case line := <-lines:
			return line
		case <-time.After(patience):
			t.Fatal("no line came")
			return ""
		}
	}
	address := strings.TrimPrefix(base, "http://")
	require.Equal(t, "present bannou self "+strings.TrimPrefix(n.url, "http://")+" healthy", next())
	register(t, s, "game", "one", base)
	require.Equal(t, "joined  game one "+address+" healthy", next())
	s.must(t, "mesh/heartbeat", object{"appId": "game", "instanceId": "one", "status": "degraded"})
	require.Equal(t, "changed game one "+address+" degraded (was healthy)", next())
	s.must(t, "mesh/deregister", object{"appId": "game", "instanceId": "one"})
	require.Equal(t, "left    game one "+address+" degraded", next())
	require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
	for line := range lines {
		t.Errorf("a line that tells nothing new: %s", line)
	}
	require.NoError(t, cmd.Wait(), "an interrupt is how it is meant to end")
}

// What a node says of its load is what it has: requests under way, of those that it can take.
func TestReportedLoad(t *testing.T) {
	n := startNode(t, "--instance-id", "self", "--mesh-heartbeat-interval", "20ms", "--mesh-max-connections", "40")
	self := func() object {
		return direct(n.url).must(t, "mesh/endpoints/get", object{"appId": "bannou"})["endpoints"].([]any)[0].(object)
	}
	number := func(member string) float64 {
		f, err := self()[member].(json.Number).Float64()
		require.NoError(t, err)
		return f
	}
	require.InDelta(t, 40, number("maxConnections"), 0)
	var streams []*http.Response
	for range 20 { // each a request that goes on
		res, err := http.Post(n.url+"/messaging/tail", "application/json", strings.NewReader(`{"topic":"none"}`))
		require.NoError(t, err)
		defer res.Body.Close()
		streams = append(streams, res)
	}
	comesTrue(t, func() bool { return number("currentConnections") >= 20 && number("loadPercent") >= 50 })
	for _, res := range streams {
		res.Body.Close()
	}
	comesTrue(t, func() bool { return number("currentConnections") <= 2 })
}
