package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	neturl "net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/services/connect/client"
)

// The names in a query of PromQL: metrics of a node, the labels that it is summed by, and the words of the language itself.
var (
	metricName = regexp.MustCompile(`\b(?:bannou|http|go|process)_[a-z_]+`)
	summedBy   = regexp.MustCompile(`by \(([^)]*)\)`)
)

// Each query of Grafana's dashboard asks for metrics, and for labels of theirs, that a node has which has published, saved and called, and had a player.
func TestTheDashboardAsksForWhatNodesHave(t *testing.T) {
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	raw, err := os.ReadFile("../../compose/grafana/dashboards/nodes.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(raw, &dashboard))

	n := startNode(t, append(quick(), realServers(t)...)...) // with a broker there is an outbox
	tell := direct(n.url)
	url, calls := receiver(t, ok)
	topic := topic("measured")
	tell.must(t, "messaging/subscribe", object{"topic": topic, "callbackUrl": url})
	tell.must(t, "messaging/publish", object{"topic": topic, "payload": object{}})
	next(t, calls)
	address, err := neturl.Parse(url)
	require.NoError(t, err)
	port, err := strconv.Atoi(address.Port())
	require.NoError(t, err)
	tell.must(t, "mesh/register", object{"appId": "measured", "instanceId": "measured-1", "host": address.Hostname(), "port": port})
	status, _ := post(t, n.url+"/v1.0/invoke/measured/method/hello", object{})
	require.Equal(t, http.StatusOK, status)
	session := loginFrom(t, tell.must(t, "auth/register", object{"email": "ada@example.org", "password": "correct horse battery"}))
	logIn(t, n, "ada@example.org", "correct horse battery")
	player, err := client.Dial(t.Context(), client.Config{URLs: []string{n.url}, AccessToken: session.AccessToken})
	require.NoError(t, err)
	t.Cleanup(func() { _ = player.Close() })
	require.NoError(t, player.WaitFor(t.Context(), "POST", "/auth/sessions/list", true))
	_, err = player.Call(t.Context(), "POST", "/auth/sessions/list", []byte(`{}`))
	require.NoError(t, err)
	series := metricsOf(t, n.url)

	asked := 0
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			names := metricName.FindAllString(summedBy.ReplaceAllString(target.Expr, ""), -1)
			require.NotEmpty(t, names, "%s: %s", panel.Title, target.Expr)
			for _, name := range names {
				asked++
				labels, there := series[name]
				require.True(t, there, "%s asks for %s, which the node does not have", panel.Title, name)
				for _, by := range summedBy.FindAllStringSubmatch(target.Expr, -1) {
					for label := range strings.SplitSeq(by[1], ",") {
						if label = strings.TrimSpace(label); label != "instance" { // Prometheus adds that one
							require.Contains(t, labels, label+`="`, "%s sums %s by a label that it does not have", panel.Title, name)
						}
					}
				}
			}
		}
	}
	require.Greater(t, asked, 10)
}

// metricsOf are the labels of one series of each metric that a node tells of.
func metricsOf(t *testing.T, base string) map[string]string {
	t.Helper()
	res, err := http.Get(base + "/metrics")
	require.NoError(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	series := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if name, labels, _ := strings.Cut(line, "{"); !strings.HasPrefix(line, "#") {
			name, _, _ = strings.Cut(name, " ")
			series[name] = labels
		}
	}
	return series
}
