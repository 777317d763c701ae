package faults_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/rabbitbus"
)

// One node holds as many sessions as it is said to, on a real broker and a real store; each gets its event, and no other. The long run has
// the 10 000 that are the default of connect.maxSessions.
func TestManySessions(t *testing.T) {
	sessions := 500
	var broker string
	if *long {
		sessions = 10_000
		own := servers.NewRabbitMQ(t, servers.RabbitOptions{}) // a shared one would be given back queue by queue
		broker = own.URL
		defer func() { require.NoError(t, own.Kill()) }() // to close 10 000 queues takes it longer than a test has
	} else {
		broker = servers.RabbitMQ(t).URL
	}
	store := servers.Redis(t).URL
	g := startGateway(t, broker, store)
	driver, err := rabbitbus.New(rabbitbus.Config{URLs: []string{broker}})
	require.NoError(t, err)
	b, err := bus.New(driver, bus.Config{})
	require.NoError(t, err)
	defer func() {
		require.NoError(t, b.Close(context.Background()))
		require.NoError(t, driver.Close(context.Background()))
	}()
	before, begin := g.memory(), time.Now()
	clients := make([]sessionClient, sessions)
	defer func() {
		for _, c := range clients {
			if c.conn != nil {
				_ = c.conn.Close()
			}
		}
	}()
	each(t, clients, func(c *sessionClient) error { return c.dial(t.Context(), g.url) })
	connected, held := time.Since(begin), g.memory()
	begin = time.Now()
	each(t, clients, func(c *sessionClient) error {
		_, err := b.PublishRaw(t.Context(), "session."+c.id+".number", fmt.Appendf(nil, `{"to":%q}`, c.id), bus.PublishOptions{})
		return err
	})
	each(t, clients, (*sessionClient).hear)
	told := time.Since(begin)
	t.Logf("%d sessions connected in %s, %d bytes of the node's memory for each; an event to each in %s, %d bytes then",
		sessions, connected.Round(time.Millisecond), (held-before)/int64(sessions), told.Round(time.Millisecond), (g.memory()-before)/int64(sessions))
}

// each does something with all clients, 64 at a time.
func each(t *testing.T, clients []sessionClient, do func(c *sessionClient) error) {
	t.Helper()
	var all sync.WaitGroup
	var mu sync.Mutex
	var failed []error
	room := make(chan struct{}, 64)
	for i := range clients {
		room <- struct{}{}
		all.Go(func() {
			defer func() { <-room }()
			if err := do(&clients[i]); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed = append(failed, err)
			}
		})
	}
	all.Wait()
	if len(failed) > 0 {
		t.Fatalf("%d of %d failed, the first of them: %s", len(failed), len(clients), failed[0])
	}
}

// A sessionClient is a client that reads when it is asked to.
type sessionClient struct {
	id   string
	conn *websocket.Conn
}

func (c *sessionClient) dial(ctx context.Context, url string) error {
	c.id = uuid.NewString()
	dialer := websocket.Dialer{NetDialContext: new(net.Dialer).DialContext, ReadBufferSize: 512, WriteBufferSize: 512}
	conn, _, err := dialer.DialContext(ctx, "ws"+strings.TrimPrefix(url, "http")+"/connect", http.Header{"Authorization": {"Bearer " + c.id}})
	if err != nil {
		return err
	}
	c.conn = conn
	_, err = c.read()
	return err
}

// hear reads the event and acknowledges it.
func (c *sessionClient) hear() error {
	message, err := c.read()
	if err != nil {
		return err
	}
	if message.Event.Sequence != 1 || message.Event.Body.To != c.id {
		return fmt.Errorf("the session hears the event %d, of %s", message.Event.Sequence, message.Event.Body.To)
	}
	return c.conn.WriteMessage(websocket.TextMessage, []byte(`{"ack":1}`))
}

type sessionMessage struct {
	Event struct {
		Sequence int `json:"seq"`
		Body     struct {
			To string `json:"to"`
		} `json:"body"`
	} `json:"event"`
}

func (c *sessionClient) read() (m sessionMessage, err error) {
	_ = c.conn.SetReadDeadline(time.Now().Add(patience))
	_, data, err := c.conn.ReadMessage()
	if err != nil {
		return m, err
	}
	return m, json.Unmarshal(data, &m)
}
