package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
)

// Config says how to connect.
type Config struct {
	// URLs are those of nodes, as http://host:port or https://host:port; one after another is tried. Required.
	URLs []string
	// AccessToken is that of the session. Required.
	AccessToken string
	// Renew gets another access token, for the time when the gateway does not take the reconnection token any more. Default: the
	// client ends then.
	Renew func(ctx context.Context) (accessToken string, err error)
	// Anew is called when the client has come back to a session that begins anew, or may have: it had to show an access token. What was published in between, and what it had not
	// acknowledged, may be gone. No event of the new connection is given before it returns, and calls wait until then: return soon, and
	// look anew, in a goroutine of your own, at what you show. Default: nobody is told.
	Anew func()
	// Retry is the pause between tries to come back; it doubles, up to 20 times as much. Default: 100 ms.
	Retry time.Duration
	// GiveUp is how long it is tried. Default: 5 min.
	GiveUp time.Duration
	// Dialer makes connections. Default: one that takes 10 s at most.
	Dialer *websocket.Dialer
}

// What a client may meet.
var (
	// ErrClosed reports a client that has ended; Err says why.
	ErrClosed = errors.New("the client has ended")
	// ErrLost reports a call that was under way when the connection was lost: it may or may not have been carried out.
	ErrLost = errors.New("the connection was lost while the call was under way")
	// ErrNotAllowed reports an endpoint that is not in the manifest.
	ErrNotAllowed = errors.New("the session may not call this endpoint")
	// ErrRefused reports tokens that the gateway does not take: the session has ended, or they are too old.
	ErrRefused = errors.New("the gateway takes neither token")
)

// An Endpoint is one that the session may call.
type Endpoint struct {
	Service string    `json:"service"`
	Method  string    `json:"method"`
	Path    string    `json:"path"`
	GUID    uuid.UUID `json:"guid"`
}

// An Event was published to the session.
type Event struct {
	Name string // the topic without session.{id}.
	ID   string
	Type string
	Body []byte // JSON
}

// A Client is a session's side of the gateway. It is safe for concurrent use.
type Client struct {
	cfg    Config
	life   context.Context //nolint:containedctx // the client's
	end    context.CancelFunc
	events chan Event
	done   chan struct{}
	inbox  inbox

	mu        sync.Mutex
	link      *link // nil: there is no connection now
	sessionID string
	accountID string
	instance  string
	reconnect string
	manifest  map[string]Endpoint // by method and path
	version   int64
	changed   chan struct{} // closed when link or manifest change
	err       error
}

// Dial connects. It returns when the gateway has said hello; WaitFor waits for what may be called.
func Dial(ctx context.Context, cfg Config) (*Client, error) {
	if len(cfg.URLs) == 0 || cfg.AccessToken == "" {
		return nil, errors.New("client: name a node and an access token")
	}
	cfg.Retry, cfg.GiveUp = cmp.Or(cfg.Retry, 100*time.Millisecond), cmp.Or(cfg.GiveUp, 5*time.Minute)
	if cfg.Dialer == nil {
		cfg.Dialer = &websocket.Dialer{HandshakeTimeout: 10 * time.Second, ReadBufferSize: 1024, WriteBufferSize: 1024}
	}
	c := &Client{cfg: cfg, events: make(chan Event), done: make(chan struct{}), changed: make(chan struct{})}
	c.inbox.signal = make(chan struct{}, 1)
	c.life, c.end = context.WithCancel(context.Background())
	l, err := c.tryAll(ctx)
	if err != nil {
		c.end()
		return nil, err
	}
	go c.run(l) //nolint:contextcheck // it lives until Close
	go c.handOut()
	return c, nil
}

// Close ends the connection, and the client.
func (c *Client) Close() error {
	c.end()
	c.mu.Lock()
	l := c.link
	c.mu.Unlock()
	if l != nil {
		l.close()
	}
	<-c.done
	return nil
}

// Done is closed when the client has ended: by Close, or because it cannot come back.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err is why the client has ended, nil before.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// SessionID is the session's id.
func (c *Client) SessionID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sessionID
}

// InstanceID names the node that holds the connection, or held it last.
func (c *Client) InstanceID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.instance
}

// Events yields each event once. It is closed when the client has ended.
func (c *Client) Events() <-chan Event { return c.events }

// Endpoints are what the session may call now.
func (c *Client) Endpoints() []Endpoint {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]Endpoint, 0, len(c.manifest))
	for _, e := range c.manifest {
		list = append(list, e)
	}
	return list
}

// WaitFor waits until the session is connected and may call an endpoint; with allowed false, until it may not.
func (c *Client) WaitFor(ctx context.Context, method, path string, allowed bool) error {
	for {
		c.mu.Lock()
		_, may := c.manifest[method+" "+path]
		there, changed := c.link != nil && c.version > 0 && may == allowed, c.changed
		c.mu.Unlock()
		if there {
			return nil
		}
		select {
		case <-changed:
		case <-c.done:
			return c.ended()
		case <-ctx.Done():
			return fmt.Errorf("%s %s: %w", method, path, context.Cause(ctx))
		}
	}
}

func (c *Client) ended() error { return errors.Join(ErrClosed, c.Err()) }

// run follows one connection after another.
func (c *Client) run(l *link) {
	defer c.end()
	for {
		err := l.read()
		l.lost()
		c.mu.Lock()
		c.link = nil
		c.stir()
		c.mu.Unlock()
		if c.life.Err() == nil && comesBack(err) {
			if l, err = c.comeBack(); err == nil && !l.resumed && c.cfg.Anew != nil {
				c.cfg.Anew()
			}
		} else if c.life.Err() != nil {
			err = nil
		}
		if err != nil || c.life.Err() != nil {
			if l != nil {
				l.close()
				l.lost()
			}
			c.mu.Lock()
			c.err = err
			c.mu.Unlock()
			close(c.done)
			return
		}
	}
}

// comesBack reports whether the gateway, or the network, has ended the connection in a way that does not forbid another.
func comesBack(err error) bool {
	return !websocket.IsCloseError(err, closeMalformed, closeEnded, closeReplaced)
}

// As the gateway's.
const (
	closeMalformed = 1007
	closeEnded     = 4001
	closeReplaced  = 4002
)

// comeBack tries until it is connected, or refused, or it was tried for long enough.
func (c *Client) comeBack() (*link, error) {
	ctx, cancel := context.WithTimeout(c.life, c.cfg.GiveUp)
	defer cancel()
	for pause := c.cfg.Retry; ; pause = min(2*pause, 20*c.cfg.Retry) {
		l, err := c.tryAll(ctx)
		if err == nil || errors.Is(err, ErrRefused) {
			return l, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), err)
		}
	}
}

// tryAll tries one node after another, with the token that it has.
func (c *Client) tryAll(ctx context.Context) (l *link, err error) {
	for _, node := range c.cfg.URLs {
		if l, err = c.try(ctx, node); err == nil {
			return l, nil
		}
		if errors.Is(err, ErrRefused) && c.forget() {
			if c.cfg.Renew != nil {
				token, renewErr := c.cfg.Renew(ctx)
				if renewErr != nil {
					return nil, errors.Join(err, renewErr)
				}
				c.cfg.AccessToken = token
			}
			if l, err = c.try(ctx, node); err == nil {
				return l, nil
			}
		}
		if errors.Is(err, ErrRefused) {
			return nil, err
		}
	}
	return nil, err
}

// forget drops the reconnection token, and reports whether there was one.
func (c *Client) forget() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	had := c.reconnect != ""
	c.reconnect = ""
	return had
}

func (c *Client) try(ctx context.Context, node string) (*link, error) {
	u, err := url.Parse(node)
	if err != nil {
		return nil, err
	}
	u.Scheme = strings.Replace(u.Scheme, "http", "ws", 1)
	u.Path = "/connect"
	c.mu.Lock()
	show := "Reconnect " + c.reconnect
	if c.reconnect == "" {
		show = "Bearer " + c.cfg.AccessToken
	}
	c.mu.Unlock()
	conn, response, err := c.cfg.Dialer.DialContext(ctx, u.String(), http.Header{
		"Authorization": {show}, "Sec-Websocket-Protocol": {"bannou.v1"},
	})
	if err != nil {
		if response != nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusUnauthorized {
				return nil, fmt.Errorf("%w: %w", ErrRefused, err)
			}
			return nil, fmt.Errorf("the gateway answered %s: %w", response.Status, err)
		}
		return nil, err
	}
	l := &link{c: c, conn: conn, calls: map[uint64]chan reply{}}
	if err := l.hello(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	l.resumed = l.resumed && strings.HasPrefix(show, "Reconnect ") // otherwise the hello of one that began anew may have been lost
	return l, nil
}

// stir tells who waits that something is different; the lock is held.
func (c *Client) stir() {
	close(c.changed)
	c.changed = make(chan struct{})
}
