package host_test

import (
	"context"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/services/host"
)

// announcer is a part that has others call the node.
type announcer struct{ part }

func (*announcer) Announces() {}

// Who is called because a service announced the node is answered, however soon: all others have started by then.
func TestAnnouncedNodeTakesRequests(t *testing.T) {
	var j journal
	var h *running
	status := make(chan int, 1)
	hand := make(chan *running, 1)
	first := &announcer{part{name: "member", needs: []string{"greeter"}, journal: &j, start: func(context.Context) error {
		h = <-hand
		response, err := h.client.Get(h.url + "/greet")
		if err != nil {
			return err
		}
		defer response.Body.Close()
		status <- response.StatusCode
		return nil
	}}}
	greeter := &part{name: "greeter", journal: &j, mount: func(mux *http.ServeMux) {
		mux.HandleFunc("GET /greet", func(http.ResponseWriter, *http.Request) {})
	}}
	late := &part{name: "late", journal: &j}
	hand <- run(t, host.Config{}, first, greeter, late)
	require.Equal(t, http.StatusOK, <-status)
	<-h.Started()
	require.Equal(t, []string{"start greeter", "start late", "start member"}, j.all())
}

// A service cannot wait for what starts when it takes requests already.
func TestNobodyDependsOnAnAnnouncer(t *testing.T) {
	var j journal
	h, err := host.New(host.Config{Listen: "127.0.0.1:0"})
	require.NoError(t, err)
	require.NoError(t, h.Add(&announcer{part{name: "member", journal: &j}}))
	require.NoError(t, h.Add(&part{name: "greeter", needs: []string{"member"}, journal: &j}))
	require.ErrorContains(t, h.Run(t.Context()), "announces the node")
}
