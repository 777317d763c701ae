package jsonbody

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/services/problem"
)

// Who stops in the middle of a body is answered when its time is over. Who sends all of it has as much time for the answer
// as that takes, and may go on to use the connection.
func TestABodyHasItsTime(t *testing.T) {
	const limit = 50 * time.Millisecond
	cut := make(chan bool, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, err := Decode[request](Limits{ReadTimeout: limit, MaxBytes: 100}, w, r)
		if err != nil {
			problem.Write(w, err)
			return
		}
		select {
		case <-r.Context().Done():
			cut <- true
		case <-time.After(2 * limit):
			cut <- false
		}
		Write(w, v)
	}))
	defer server.Close()
	for length, status := range map[int]int{12: 400, 1000: 413} {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		require.NoError(t, err)
		defer conn.Close()
		require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
		answers := bufio.NewReader(conn)
		ask := func(length int, body string) int {
			_, err = fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s", length, body)
			require.NoError(t, err)
			response, err := http.ReadResponse(answers, nil)
			require.NoError(t, err)
			_, err = io.Copy(io.Discard, response.Body)
			require.NoError(t, err)
			require.NoError(t, response.Body.Close())
			return response.StatusCode
		}
		for range 3 {
			require.Equal(t, 200, ask(12, `{"name":"a"}`))
			require.False(t, <-cut, "the handler was cut off")
		}
		begin := time.Now()
		require.Equal(t, status, ask(length, `{"name":`))
		require.WithinRange(t, time.Now(), begin.Add(limit), begin.Add(5*time.Second))
	}
}
