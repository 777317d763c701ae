package faults_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"

	"github.com/bannou-mesh/bannou/integration/faults"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/mysqlevents"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
)

// The environment of a writer or consumer that runs as a process of its own, this binary once more.
const (
	eventDSN  = "BANNOU_FAULTS_EVENTS_DSN"
	eventWork = "BANNOU_FAULTS_EVENTS_WORK" // "write" or "consume", and the process's number
)

const (
	eventProcesses = 2 // that write, and that consume
	eventLease     = 500 * time.Millisecond

	ordered, parted = "ordered", "parted" // the subscriptions
)

// An eventProcess works until its standard input ends, or it is killed.
type eventProcess struct {
	cmd   *exec.Cmd
	stdin io.Closer
	said  chan error // when all that it said has been entered

	consumer string // of the subscription that has all in order
}

// startConsumer starts one, and returns when it is among those that may lead.
func (r *eventRun) startConsumer(ctx context.Context) (err error) {
	if err := r.start(&r.consumers, "consume"); err != nil {
		return err
	}
	p := r.consumers[len(r.consumers)-1]
	p.consumer, err = enlisted(ctx, r.db, ordered, r.known)
	r.known = append(r.known, p.consumer)
	return err
}

// leader waits until one of the consumers has all in order, and has it be the last of them.
func (r *eventRun) leader(ctx context.Context) (*eventProcess, error) {
	consumers := make([]string, len(r.consumers))
	for i, p := range r.consumers {
		consumers[i] = p.consumer
	}
	i, err := leads(ctx, r.db, ordered, consumers)
	if err != nil {
		return nil, err
	}
	leader := r.consumers[i]
	r.consumers = append(slices.Delete(r.consumers, i, i+1), leader)
	return leader, nil
}

func (r *eventRun) start(among *[]*eventProcess, work string) error {
	r.started++
	p := &eventProcess{cmd: exec.Command(os.Args[0], fmt.Sprintf("-seed=%d", *seed+uint64(r.started))), said: make(chan error, 1)}
	p.cmd.Env = append(os.Environ(), eventDSN+"="+r.dsn, fmt.Sprintf("%s=%s %d", eventWork, work, r.started))
	p.cmd.Stderr = os.Stderr
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	p.cmd.Stdout = write
	err = p.cmd.Start()
	_ = write.Close() // the child has its own
	if err != nil {
		_ = read.Close()
		return err
	}
	go func() {
		defer func() { _ = read.Close() }()
		p.said <- enterEvents(bufio.NewReader(read), r.ledger)
	}()
	*among = append(*among, p)
	return nil
}

// enterEvents enters the lines of a writer until its pipe is closed. A line is written at once or not at all.
func enterEvents(said *bufio.Reader, ledger *faults.EventLedger) error {
	for {
		line, err := said.ReadBytes('\n')
		if err != nil {
			return nil //nolint:nilerr // the process has ended
		}
		var n faults.EventNews
		if err := json.Unmarshal(line, &n); err != nil {
			return fmt.Errorf("the writer said %q: %w", line, err)
		}
		ledger.Enter(n)
	}
}

// replaceWriter ends the writer that has run for the longest, and starts another one.
func (r *eventRun) replaceWriter(end func(*eventProcess) error) error {
	first := r.writers[0]
	r.writers = r.writers[1:]
	return errors.Join(end(first), r.start(&r.writers, "write"))
}

func (p *eventProcess) signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// kill ends it with SIGKILL, and returns when all that it said has been entered. Ending twice does no harm.
func (p *eventProcess) kill() error {
	if p.cmd.ProcessState != nil {
		return nil
	}
	err := p.cmd.Process.Kill()
	_ = p.cmd.Wait() // it says that it was killed
	return errors.Join(err, <-p.said)
}

// end has it finish what it does.
func (p *eventProcess) end() error {
	return errors.Join(p.stdin.Close(), p.cmd.Wait(), <-p.said)
}

// workOnEvents is what such a process does.
func workOnEvents(work, dsn string) int {
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	err := func() error {
		driver, err := mysqlstate.New(mysqlstate.Config{DSN: dsn})
		if err != nil {
			return err
		}
		store, err := mysqlevents.Open(driver, eventstore.Config{})
		if err != nil {
			return err
		}
		var what, number string
		if _, err := fmt.Sscan(work, &what, &number); err != nil {
			return err
		}
		if what == "write" {
			err = writeEvents(ctx, store, dsn, number)
		} else {
			err = consumeEvents(ctx, store)
		}
		return errors.Join(err, driver.Close())
	}()
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, work+":", err)
		return 1
	}
	return 0
}

// writeEvents appends with the process's share of the writers, and beside them as somebody else would.
func writeEvents(ctx context.Context, store *eventstore.Store, dsn, number string) error {
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		return err
	}
	var others sync.WaitGroup
	for i, slow := range []bool{true, false} {
		random := rand.New(rand.NewPCG(*seed, uint64(i))) // a schedule to be repeated
		others.Go(func() {
			for ctx.Err() == nil {
				appendAsOthers(ctx, db, random, fmt.Sprint(number, slow), slow)
			}
		})
	}
	var mu sync.Mutex
	load := &faults.EventLoad{Store: store, Run: number, Writers: faults.EventWriters / eventProcesses, Seed: *seed, Said: func(n faults.EventNews) {
		line, err := json.Marshal(n)
		if err != nil {
			panic(err) // it is made of texts and numbers
		}
		mu.Lock()
		defer mu.Unlock()
		_, _ = os.Stdout.Write(append(line, '\n')) // one write: a line or nothing
	}}
	load.Write(ctx)
	others.Wait()
	return db.Close()
}

// appendAsOthers is a transaction of somebody else that inserts up to three events. It may lose the race for the position. Slow ones take their time, and half of
// them are rolled back, of the others 5 %.
func appendAsOthers(ctx context.Context, db *sql.DB, random *rand.Rand, stream string, slow bool) {
	_ = faults.Pause(ctx, time.Duration(random.IntN(int(100*time.Millisecond))))
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return
	}
	defer func() { _ = tx.Rollback() }()
	for range 1 + random.IntN(3) {
		id := uuid.New()
		_, err := tx.ExecContext(ctx, "INSERT INTO events SELECT e.p, 'others', ?, v.v, ?, 'other', 1, '{}', '{}', 0 FROM (SELECT COALESCE(MAX(position), 0) + 1 AS p FROM events) e,"+
			" (SELECT COALESCE(MAX(version), 0) + 1 AS v FROM events WHERE category = 'others' AND stream = ?) v", stream, id[:], stream)
		if err != nil {
			return // it has lost
		}
	}
	rollback := 20
	if slow {
		_ = faults.Pause(ctx, time.Duration(random.IntN(int(20*time.Millisecond))))
		rollback = 2
	}
	if random.IntN(rollback) > 0 {
		_ = tx.Commit() // it may have been killed with the server
	}
}

// consumeEvents has a share of both subscriptions.
func consumeEvents(ctx context.Context, store *eventstore.Store) error {
	var subs []*eventstore.Subscription
	for name, partitions := range map[string]int{ordered: 1, parted: 4} {
		sub, err := store.Subscribe(eventstore.SubscriptionConfig{Name: name, Partitions: partitions, Lease: eventLease, Poll: 20 * time.Millisecond, Batch: 20,
			HandleIn: func(ctx context.Context, tx *sql.Tx, e eventstore.Recorded) error {
				_, err := tx.ExecContext(ctx, "INSERT INTO handled (subscription, position, id) VALUES (?, ?, ?)", name, e.Position, e.ID)
				return err
			}})
		if err != nil {
			return err
		}
		subs = append(subs, sub)
	}
	<-ctx.Done()
	var errs []error
	for _, sub := range subs {
		closing, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		errs = append(errs, sub.Close(closing))
		cancel()
	}
	return errors.Join(errs...)
}
