package migration_test

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
)

var (
	out  = flag.String("out", "", "page whose table this run writes")
	long = flag.Bool("long", false, "tell the story also with processes that are killed")
)

// A move is a step of the story: one block of a service to native, or back.
type move struct {
	block   string
	native  bool
	service string
}

// moves are those of the guide, in its order: calls first, callers before whom they call, so that nobody looks for an instance that was replaced in
// the names of Dapr, which know nothing of an instance that drains; then state; then events, those who hear before the one who tells. Some are
// taken back, and made again, the last first.
func moves() []move {
	var all []move
	for _, block := range []string{calling, stateful} {
		for _, service := range everyone() {
			all = append(all, move{block, true, service})
		}
	}
	for _, service := range []string{"ledger", "payments", "orders", "stock"} {
		all = append(all, move{messaging, true, service})
	}
	back := []move{{messaging, false, "ledger"}, {messaging, false, "orders"}, {stateful, false, "payments"}, {calling, false, "orders"}}
	all = append(all, back...)
	for _, m := range slices.Backward(back) {
		all = append(all, move{m.block, true, m.service})
	}
	for _, native := range []bool{true, false, true} { // nobody reads it by Dapr any more
		all = append(all, move{publishing, native, "orders"})
	}
	return all
}

// byDecision reports whether `bannou migrate` makes a move; flags make the others.
func (m move) byDecision() bool {
	return m.block == publishing || m.block == stateful && m.service == decided
}

func (m move) String() string {
	where := "to native"
	if !m.native {
		where = "back to Dapr"
	}
	what := map[string]string{calling: "calls of ", stateful: "state of ", messaging: "events of "}[m.block] + m.service
	if m.block == publishing {
		what = "topic " + topic
	}
	if m.byDecision() {
		where += " (`bannou migrate`)"
	}
	return what + " " + where
}

// A row is what the page says of one step.
type row struct {
	name                   string
	calls, excused, failed int
	sent, handled, doubled int
	lost, mismatches       int
	took                   time.Duration
}

func (r row) String() string {
	return fmt.Sprintf("| %s | %d | %d | %d | %d | %d | %d | %d | %d | %.1f s |", r.name, r.calls, r.excused, r.failed, r.sent, r.handled, r.doubled, r.lost, r.mismatches, r.took.Seconds())
}

// A story is a world with its load, as far as it is told.
type story struct {
	*world
	load  *load
	kills bool // processes are killed instead of ended
	told  *tellings
	moved int // how often the store that is moved by decisions was
	rows  []row

	calls   int // made before this step
	stale   int
	sent    int
	handled int
	again   int64
}

// TestStory replaces instances as a platform does, without killing any.
func TestStory(t *testing.T) {
	s := tell(t, false)
	if *out != "" {
		write(t, *out, "story", s)
	}
}

// TestStoryOfKills is the long form: instances that are replaced, and their sidecars, are killed.
func TestStoryOfKills(t *testing.T) {
	if !*long {
		t.Skip("make story tells it")
	}
	s := tell(t, true)
	if *out != "" {
		write(t, *out, "story of kills", s)
	}
}

func tell(t *testing.T, kills bool) *story {
	servers.NeedDaprd(t)
	s := &story{world: &world{t: t, set: servers.All(t), kept: t.TempDir()}, load: newLoad(), kills: kills}
	s.told = listen(t, s.set.RabbitMQ.URL)
	t.Logf("seed %d", s.load.seed)
	for _, service := range []string{"ledger", "stock", "payments", "orders"} { // who is called, before who calls
		s.load.put(s.start(service, place{}, true))
	}
	s.load.open(t)

	ctx, end := context.WithCancel(t.Context())
	go s.load.run(ctx)
	t.Cleanup(func() { end(); <-s.load.ended })

	s.step("all on Dapr", func() { s.refused(); s.rest() })
	for _, m := range moves() {
		s.step(m.String(), func() { s.move(m) })
	}
	for _, service := range everyone() {
		s.step("sidecar of "+service+" ended", func() { s.replace(service, false) })
	}
	s.step("no sidecars", func() { s.rest() })
	end()
	<-s.load.ended
	require.Empty(t, s.load.untrue(t))
	s.told.await(t, s.moved)
	return s
}

// rest lets the load make some calls.
func (s *story) rest() {
	const some = 60
	s.load.mu.Lock()
	before := len(s.load.calls)
	s.load.mu.Unlock()
	require.Eventually(s.t, func() bool {
		s.load.mu.Lock()
		defer s.load.mu.Unlock()
		return len(s.load.calls) >= before+some
	}, patience, 10*time.Millisecond)
}

// move starts an instance of a service elsewhere, puts it in front, and ends the old one. Two that hear of orders in different ways each have a
// queue: the new one has what comes after it, so that the old one stays until what was told before is heard of.
func (s *story) move(m move) {
	if m.byDecision() {
		s.decide(m)
	}
	before := s.load.put(s.start(m.service, s.load.front[m.service].at.with(m.block, m.native), true))
	moved := hears(m.service) != "" && m.block == messaging
	if moved {
		s.load.settled(s.t)
	}
	s.end(before)
	if moved {
		s.removeQueue(before)
	}
	if m.byDecision() && m.block == stateful {
		s.moved++
		s.told.await(s.t, s.moved)
	}
}

// replace replaces an instance by one of the same kind, or by one without a sidecar.
func (s *story) replace(service string, sidecar bool) {
	s.end(s.load.put(s.start(service, s.load.front[service].at, sidecar)))
}

// end ends an instance that is not in front any more.
func (s *story) end(i *instance) {
	if s.kills {
		s.load.killed()
		i.kill(s.t)
	} else {
		i.stop(s.t)
	}
}

// removeQueue removes the queue that an instance has read, and that nobody reads any more.
func (s *story) removeQueue(i *instance) {
	name := i.service + "-" + topic
	if i.at[messaging] {
		name = topic + "." + i.service + "." + hears(i.service)
	}
	connection, err := amqp.Dial(s.set.RabbitMQ.URL)
	require.NoError(s.t, err)
	defer func() { _ = connection.Close() }()
	require.Eventually(s.t, func() bool { // until the broker has seen that a killed reader is gone
		channel, err := connection.Channel() // a refusal closes it
		if err != nil {
			return false
		}
		defer func() { _ = channel.Close() }()
		_, err = channel.QueueDelete(name, true, false, false)
		return err == nil
	}, patience, 20*time.Millisecond, name)
}

// step makes a step under load, and counts what came of it.
func (s *story) step(name string, do func()) {
	begun := time.Now()
	do()
	s.rest()
	b := s.load.settled(s.t)
	l := s.load
	l.mu.Lock()
	r := row{name: name, calls: len(l.calls) - s.calls, handled: b.handled - s.handled, doubled: int(b.again - s.again), lost: len(b.lostEvents),
		mismatches: len(b.lostWrites) + len(l.stale) - s.stale, took: time.Since(begun)}
	for _, orders := range l.acked {
		r.sent += len(orders)
	}
	r.sent, s.sent = r.sent-s.sent, r.sent
	from, stale := s.calls, l.stale[s.stale:]
	s.calls, s.stale, s.handled, s.again = len(l.calls), len(l.stale), b.handled, b.again
	l.mu.Unlock()
	excused, failed := l.failures(from)
	r.excused, r.failed = len(excused), len(failed)
	s.rows = append(s.rows, r)
	s.t.Log(r)
	require.Empty(s.t, failed, "%s: failed calls that no kill explains", name)
	require.Empty(s.t, b.lostEvents, "%s: events lost", name)
	require.Empty(s.t, b.lostWrites, "%s: writes lost", name)
	require.Empty(s.t, stale, "%s: stale reads", name)
}
