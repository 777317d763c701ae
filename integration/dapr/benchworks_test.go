package dapr_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/link"
	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
)

// works are what all three ways do.
func (b *bench) works() []work {
	all, twice := []int{1, 16, 64}, map[int]float64{1: 2, 16: 2, 64: 2}
	over := func(do func(api string, caller, number int) error) map[string]func(int, int) error {
		return map[string]func(int, int) error{
			"dapr":   func(caller, number int) error { return do(b.dapr, caller, number) },
			"facade": func(caller, number int) error { return do(b.facade, caller, number) },
		}
	}
	with := func(do map[string]func(int, int) error, native func(caller, number int) error) map[string]func(int, int) error {
		do["native"] = native
		return do
	}
	return []work{
		{name: healthWork, callers: all,
			do: over(func(api string, caller, _ int) error {
				return b.wires.ask(b.t.Context(), caller, http.MethodGet, api+"/v1.0/healthz", "", http.StatusNoContent)
			})},
		{name: "invoke", callers: all, bars: map[string]map[int]float64{"facade": twice, "native": {1: 7, 16: 7, 64: 7}},
			do: with(over(func(api string, caller, number int) error {
				return b.post(caller, api+"/v1.0/invoke/"+b.called+"/method/echo", event(caller, number), http.StatusOK)
			}), func(caller, number int) error {
				request, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, "/echo", strings.NewReader(event(caller, number)))
				if err != nil {
					return err
				}
				request.Header.Set("Content-Type", asJSON)
				return check(b.mesh.Do(b.t.Context(), b.called, request))(http.StatusOK)
			})},
		{name: "publish", callers: all, bars: map[string]map[int]float64{"facade": twice, "native": {64: 8}}, exchanges: 1,
			do: with(over(func(api string, caller, number int) error {
				return b.post(caller, api+publish+"broker/bench-sunk", event(caller, number), http.StatusNoContent)
			}), func(caller, number int) error {
				_, err := b.link.Bus.PublishRaw(b.t.Context(), "bench-sunk", []byte(event(caller, number)), bus.PublishOptions{})
				return err
			})},
		{name: "end to end", callers: all, bars: map[string]map[int]float64{"facade": twice}, exchanges: 2,
			do: with(over(func(api string, caller, number int) error {
				return b.untilHandled(caller, number, func(body string) error {
					return b.post(caller, api+publish+"broker/bench-handled", body, http.StatusNoContent)
				})
			}), func(caller, number int) error {
				return b.untilHandled(caller, number, func(body string) error {
					_, err := b.link.Bus.PublishRaw(b.t.Context(), "bench-native", []byte(body), bus.PublishOptions{})
					return err
				})
			})},
		{name: "save", callers: all, bars: map[string]map[int]float64{"facade": twice}, exchanges: 1,
			do: with(over(func(api string, caller, number int) error {
				return b.post(caller, api+stateOf+"redis", fmt.Sprintf(`[{"key":"k%d","value":%s}]`, caller, event(caller, number)), http.StatusNoContent)
			}), func(caller, number int) error {
				_, err := b.store.Save(b.t.Context(), fmt.Sprintf("k%d", caller), json.RawMessage(event(caller, number)))
				return err
			})},
		{name: "get", callers: all, bars: map[string]map[int]float64{"facade": twice}, exchanges: 1,
			do: with(over(func(api string, caller, _ int) error {
				if caller < 64 {
					if err := b.kept(api, caller); err != nil {
						return err
					}
				}
				return b.wires.ask(b.t.Context(), caller, http.MethodGet, fmt.Sprintf("%s%sredis/k%d", api, stateOf, caller), "", http.StatusOK)
			}), func(caller, number int) error {
				_, err := b.store.Get(b.t.Context(), fmt.Sprintf("k%d", caller))
				return err
			})},
	}
}

var saved sync.Map // keys that there are, by API

// kept makes sure that there is something to get.
func (b *bench) kept(api string, caller int) error {
	key := fmt.Sprintf("%s %d", api, caller)
	if _, there := saved.LoadOrStore(key, true); there {
		return nil
	}
	if _, err := b.store.Save(b.t.Context(), fmt.Sprintf("k%d", caller), json.RawMessage(event(caller, 0))); err != nil {
		return err
	}
	return b.post(caller, api+stateOf+"redis", fmt.Sprintf(`[{"key":"k%d","value":%s}]`, caller, event(caller, 0)), http.StatusNoContent)
}

// rest are the figures that are no rates.
func (b *bench) rest() string {
	var page strings.Builder
	fmt.Fprintf(&page, "| figure | Dapr | facade |\n| --- | ---: | ---: |\n")
	fmt.Fprintf(&page, "| resident memory after the work, MiB | %.0f | %.0f |\n", resident(b.t, b.daprPort), resident(b.t, b.nodeAddr))
	var starts [2][]float64
	var idle [2][]float64
	for range *benchRounds {
		for i, way := range ways[:2] {
			took, memory := b.start(way)
			starts[i], idle[i] = append(starts[i], took), append(idle[i], memory)
		}
	}
	fmt.Fprintf(&page, "| resident memory after the start, MiB | %.0f | %.0f |\n", middle(idle[0]), middle(idle[1]))
	fmt.Fprintf(&page, "| start of the process to ready, ms | %.0f | %.0f |\n", middle(starts[0]), middle(starts[1]))
	fmt.Fprintf(&page, "\n| bytes of an event of 256 B between its broker and its publisher and subscriber, TCP payload both ways | Dapr | facade | native |\n| --- | ---: | ---: | ---: |\n| |")
	for _, way := range ways {
		fmt.Fprintf(&page, " %.0f |", b.wire(way))
	}
	fmt.Fprintf(&page, "\n\n%s on %d cores.\n", runtime.Version(), runtime.NumCPU())
	return page.String()
}

// start starts another sidecar, or another node, and says how many milliseconds it took, and what memory it has then.
func (b *bench) start(way string) (milliseconds, mebibytes float64) {
	begin := time.Now()
	var argument string
	if way == "dapr" {
		d := servers.NewDaprd(b.t, servers.DaprdOptions{AppID: "another", Resources: b.components(b.servers.RabbitMQ.URL)})
		argument = fmt.Sprint(d.HTTPPort)
	} else {
		s := newFacade(b.t, b.components(b.servers.RabbitMQ.URL), newApp(b.t, "[]"), "--dapr-app-id", "another")
		argument = strings.TrimPrefix(s.url, "http://")
	}
	took := time.Since(begin)
	return float64(took.Milliseconds()), resident(b.t, argument)
}

// wire counts the bytes between a broker and those that use it, for each of some events.
func (b *bench) wire(way string) float64 {
	counted, count := b.counting()
	send := b.wired(way, "bench-wired-"+way, counted)
	const events = 100
	require.NoError(b.t, b.untilHandled(1000, 0, send)) // connections and queues
	before := count.Load()
	for i := range events {
		require.NoError(b.t, b.untilHandled(1000, i+1, send))
	}
	return float64(count.Load()-before) / events
}

// wired is a publisher of a topic that a subscriber takes, both over the counted connection.
func (b *bench) wired(way, topic, broker string) func(body string) error {
	t := b.t
	if way == "native" {
		l, err := link.Open(link.Servers{Registry: b.servers.Redis.URL, Bus: broker}, "wired", slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), wait)
			defer cancel()
			require.NoError(t, l.Close(ctx))
		})
		_, err = l.Bus.SubscribeRaw(t.Context(), topic, func(_ context.Context, r *bus.Received) error {
			b.handled(r.Body)
			return nil
		}, bus.SubscriptionOptions{Group: "wired", Durable: true})
		require.NoError(t, err)
		return func(body string) error {
			_, err := l.Bus.PublishRaw(t.Context(), topic, []byte(body), bus.PublishOptions{})
			return err
		}
	}
	declaredHere := fmt.Sprintf("apiVersion: dapr.io/v2alpha1\nkind: Subscription\nmetadata:\n  name: wired\nspec:\n  pubsubname: broker\n  topic: %s\n  routes:\n    default: /on/bench\n", topic)
	resources := append(b.components(broker), declaredHere)
	address := b.newApp()
	api := ""
	if way == "dapr" {
		api = servers.NewDaprd(t, servers.DaprdOptions{AppID: "wired", AppPort: portOf(t, address), Resources: resources}).URL
	} else {
		a := newApp(t, `[{"topic"},{"topic"}]`) // as many subscriptions as are waited for: the declared one, and that of the app
		a.elsewhere = address
		api = newFacade(t, resources, a, "--dapr-app-id", "wired").url
	}
	return func(body string) error { return b.post(0, api+publish+"broker/"+topic, body, http.StatusNoContent) }
}

// counting is another address of the broker, and how many bytes went over it.
func (b *bench) counting() (address string, count *atomic.Int64) {
	target, err := url.Parse(b.servers.RabbitMQ.URL)
	require.NoError(b.t, err)
	listener, err := new(net.ListenConfig).Listen(b.t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(b.t, err)
	b.t.Cleanup(func() { _ = listener.Close() })
	count = new(atomic.Int64)
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			far, err := new(net.Dialer).DialContext(context.Background(), "tcp", target.Host)
			if err != nil {
				_ = near.Close()
				continue
			}
			for _, pair := range [][2]net.Conn{{near, far}, {far, near}} {
				go func() {
					_, _ = io.Copy(pair[0], counted{pair[1], count})
					_, _ = pair[0].Close(), pair[1].Close()
				}()
			}
		}
	}()
	through := *target
	through.Host = listener.Addr().String()
	return through.String(), count
}

// counted counts what is read.
type counted struct {
	io.Reader
	count *atomic.Int64
}

// Read implements io.Reader.
func (c counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.count.Add(int64(n))
	return n, err
}
