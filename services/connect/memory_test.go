package connect_test

import (
	"bufio"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// An idle session takes 24 KiB at most, of heap and stacks, those of its queue in the process's memory and of its client's socket included.
func TestMemoryOfIdleSessions(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector takes memory of its own")
	}
	const sessions, most = 1000, 24 << 10
	w := start(t, 1)
	connectAll := func(n int) []net.Conn {
		conns := make([]net.Conn, n)
		var all sync.WaitGroup
		slots := make(chan struct{}, 32)
		for i := range conns {
			token, _ := w.login("user")
			slots <- struct{}{}
			all.Go(func() {
				defer func() { <-slots }()
				conns[i] = bare(t, w.nodes[0], token)
			})
		}
		all.Wait()
		return conns
	}
	warm := connectAll(50)
	before := inUse()
	conns := connectAll(sessions)
	each := (inUse() - before) / sessions
	t.Logf("%d bytes for each of %d idle sessions", each, sessions)
	require.LessOrEqual(t, each, int64(most))
	for _, c := range append(warm, conns...) {
		require.NoError(t, c.Close())
	}
}

// bare connects with nothing but a socket, and reads no more than the handshake.
func bare(t *testing.T, n *gateway, token string) net.Conn {
	address := strings.TrimPrefix(n.url, "http://")
	var d net.Dialer
	c, err := d.DialContext(t.Context(), "tcp", address)
	require.NoError(t, err)
	_, err = c.Write([]byte("GET /connect HTTP/1.1\r\nHost: " + address + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nAuthorization: Bearer " + token + "\r\n\r\n"))
	require.NoError(t, err)
	response, err := http.ReadResponse(bufio.NewReaderSize(c, 64), nil)
	require.NoError(t, err)
	defer response.Body.Close()
	require.Equal(t, http.StatusSwitchingProtocols, response.StatusCode)
	return c
}

func inUse() int64 {
	var m runtime.MemStats
	for range 3 {
		runtime.GC() // stacks shrink, and pools are emptied, in two cycles
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}
