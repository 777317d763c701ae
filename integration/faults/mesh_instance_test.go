package faults_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9/logging"

	"github.com/bannou-mesh/bannou/integration/faults"
	"github.com/bannou-mesh/bannou/integration/link"
	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/services/host"
	"github.com/bannou-mesh/bannou/services/membership"
)

// instanceVariable holds the description of an instance that runs as a process of its own, this binary once more.
const instanceVariable = "BANNOU_FAULTS_INSTANCE"

// meshServices are what every instance runs: which app-id serves one is for the mappings to say.
func meshServices() []string { return []string{"work", "play"} }

// A description is what an instance is told when it starts.
type description struct {
	AppID, InstanceID string
	Listen            string       // host:port; port 0 takes a free one
	Servers           link.Servers // none: it only serves, and others register it
}

// serveInstance is the process of an instance. It ends with its standard input, or by SIGTERM as a node would, and is told on standard
// input what to do:
//
//	behave KIND VALUE  ok; status 500; slow 300ms; reset (the connection ends instead of an answer)
//	flap 50ms          leave the registry and register again so often; 0 ends it
//	left               answers with the numbers of open connections and of goroutines that serve them
//	held               answers with the number of calls that it holds
//	sync               answers when all that was said before has been written
//
// On standard output it says its address, once it is registered, the number of each Once call before it is answered, and those answers.
func serveInstance(described string) int {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	logging.Disable() // the Redis client's own, of connections; what failed says so itself
	var d description
	err := json.Unmarshal([]byte(described), &d)
	if err == nil {
		err = d.serve(log)
	}
	if err != nil {
		log.Error("the instance ends", "error", err)
		return 1
	}
	return 0
}

func (d description) serve(log *slog.Logger) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", d.Listen)
	if err != nil {
		return err
	}
	counting := &countingListener{Listener: listener}
	h, err := host.New(host.Config{Listener: counting, Logger: log, Middleware: func(next http.Handler) http.Handler { // as a node has it
		return mesh.Addressed(d.AppID, mesh.Inbound(next))
	}})
	if err != nil {
		return err
	}
	w := &worker{identity: faults.Answer{AppID: d.AppID, InstanceID: d.InstanceID}, connections: &counting.open}
	if err := h.Add(w); err != nil {
		return err
	}
	closeLink := func() error { return nil }
	if d.Servers != (link.Servers{}) {
		l, err := link.Open(d.Servers, d.AppID, log)
		if err != nil {
			return err
		}
		w.registry = l.Registry
		w.endpoint = mesh.Endpoint{AppID: d.AppID, InstanceID: d.InstanceID, Host: "127.0.0.1", Port: listener.Addr().(*net.TCPAddr).Port, Services: meshServices()}
		member, err := membership.NewMember(membership.Config{Registry: l.Registry, Bus: l.Bus, AppID: d.AppID, InstanceID: d.InstanceID,
			Services: meshServices(), Host: "127.0.0.1", Addr: h.Addr, InFlight: h.InFlight, Interval: time.Second,
			DrainNotice: 500 * time.Millisecond /* a node's default */, Logger: log})
		if err != nil {
			return err
		}
		if err := h.Add(announced{member}); err != nil {
			return err
		}
		closeLink = func() error {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			return l.Close(ctx)
		}
	}
	go func() {
		select {
		case <-h.Started():
			w.say("at %s", listener.Addr())
		case <-ctx.Done():
		}
	}()
	go func() {
		w.obey(ctx, os.Stdin)
		os.Exit(0) // nobody is left to serve
	}()
	return errors.Join(h.Run(ctx), closeLink())
}

// announced is a member that announces services which are one to the host.
type announced struct{ *membership.Member }

func (announced) DependsOn() []string { return []string{"work"} }

// A worker answers calls, well or badly.
type worker struct {
	host.Base
	identity    faults.Answer
	connections *atomic.Int64
	registry    *mesh.Registry // nil: others register the instance
	endpoint    mesh.Endpoint

	out    sync.Mutex // of standard output
	manner atomic.Pointer[manner]
	held   atomic.Int64 // calls that are held
}

// A manner is how a worker answers.
type manner struct {
	status int           // 0: well
	slow   time.Duration // before it answers
	reset  bool          // it does not
}

func (*worker) Name() string { return "work" }

func (w *worker) Mount(mux *http.ServeMux) error {
	mux.HandleFunc("/task/{call}", w.work)
	mux.HandleFunc("/task/held/{call}", w.hold)
	return nil
}

// hold answers until the caller goes away: one in two has begun to by then.
func (w *worker) hold(rw http.ResponseWriter, r *http.Request) {
	w.held.Add(1)
	defer w.held.Add(-1)
	if number, _ := strconv.Atoi(r.PathValue("call")); number%2 == 0 {
		_, _ = rw.Write([]byte("the first part"))
		_ = http.NewResponseController(rw).Flush()
	}
	<-r.Context().Done()
}

func (w *worker) work(rw http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost && r.Header.Get("Idempotency-Key") == "" {
		w.say("handled %s", r.PathValue("call"))
	}
	m := w.manner.Load()
	if m == nil {
		m = new(manner)
	}
	if m.slow > 0 && faults.Pause(r.Context(), m.slow) != nil {
		return // the caller has gone, or waits no longer
	}
	switch {
	case m.reset:
		panic(http.ErrAbortHandler)
	case m.status != 0:
		http.Error(rw, "as it was told to", m.status)
		return
	}
	answer := w.identity
	answer.Call, _ = strconv.Atoi(r.PathValue("call")) // who called sees what was wrong
	rw.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(rw).Encode(answer) // the caller may have gone
}

func (w *worker) say(format string, values ...any) {
	w.out.Lock()
	defer w.out.Unlock()
	_, _ = fmt.Fprintf(os.Stdout, format+"\n", values...)
}

// obey does what it reads, until there is nothing more.
func (w *worker) obey(ctx context.Context, in io.Reader) {
	endFlapping := func() {}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		words := append(strings.Fields(lines.Text()), "", "", "")
		switch words[0] {
		case "behave":
			w.behave(words[1], words[2])
		case "flap":
			endFlapping()
			endFlapping = w.flap(ctx, words[1])
			w.say("flaps")
		case "left":
			stacks := make([]byte, 4<<20)
			stacks = stacks[:runtime.Stack(stacks, true)]
			w.say("left %d %d", w.connections.Load(), strings.Count(string(stacks), "net/http.(*conn).serve("))
		case "held":
			w.say("held %d", w.held.Load())
		case "sync":
			w.say("synced")
		}
	}
}

func (w *worker) behave(kind, value string) {
	m := new(manner)
	switch kind {
	case "status":
		m.status, _ = strconv.Atoi(value)
	case "slow":
		m.slow, _ = time.ParseDuration(value)
	case "reset":
		m.reset = true
	}
	w.manner.Store(m)
	w.say("behaves")
}

// flap has the instance leave the registry and come back, over and over; it serves meanwhile.
func (w *worker) flap(ctx context.Context, every string) (end func()) {
	period, _ := time.ParseDuration(every)
	if period <= 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for faults.Pause(ctx, period) == nil {
			bounded, done := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			_, left := w.registry.Deregister(bounded, w.endpoint.AppID, w.endpoint.InstanceID)
			if err := errors.Join(left, w.registry.Register(bounded, w.endpoint)); err != nil {
				slog.New(slog.NewTextHandler(os.Stderr, nil)).Error("the registry took no change", "error", err)
			}
			done()
		}
	}()
	return func() { cancel(); <-ended }
}

// A countingListener knows how many of its connections are open.
type countingListener struct {
	net.Listener
	open atomic.Int64
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return counted(c, &l.open), nil
}

// counted counts a connection until it is closed.
func counted(c net.Conn, open *atomic.Int64) net.Conn {
	open.Add(1)
	return &countedConn{Conn: c, open: open}
}

type countedConn struct {
	net.Conn
	open *atomic.Int64
	once sync.Once
}

func (c *countedConn) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.Conn.Close()
}
