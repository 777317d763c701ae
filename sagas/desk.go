package sagas

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

const (
	// behind is how many positions an instance lies back before it is written anew.
	behind = 50_000
	// again is how long after a job failed it is begun again: the store is away.
	again = time.Second
)

// A desk has the open instances of one partition in memory, each by its last event, and does what is due. One goroutine runs it; jobs, which wait for
// others, have goroutines of their own, of which an instance has one at a time.
type desk struct {
	agenda *agenda
	lease  eventstore.Lease

	ctx    context.Context //nolint:containedctx // of jobs: it ends when the lease does
	cancel context.CancelCauseFunc
	expire *time.Timer

	read     int64 // up to which the log was read
	trail    *eventstore.Trail
	open     map[string]*Instance
	dues     dues
	most     int // when there are more dues than this, those that are no more are dropped
	busy     map[string]*job
	idle     map[string]int64 // at which version of an instance a job came to nothing
	finished chan *job
	tended   time.Time // when the lease was renewed
}

// A job is what is done for an instance.
type job struct {
	key     string
	version int64  // of the instance
	work    string // the command that it is about, with its attempt; empty: none
	cancel  context.CancelFunc
	failed  bool
	idle    bool // the instance took nothing
}

// A due is when an instance has to be looked at.
type due struct {
	at  time.Time
	key string
}

type dues []due

func (d dues) Len() int           { return len(d) }
func (d dues) Less(i, j int) bool { return d[i].at.Before(d[j].at) }
func (d dues) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }
func (d *dues) Push(x any)        { *d = append(*d, x.(due)) }
func (d *dues) Pop() any {
	last := (*d)[len(*d)-1]
	*d = (*d)[:len(*d)-1]
	return last
}

func newDesk(ctx context.Context, a *agenda, lease eventstore.Lease, asked time.Time) *desk {
	d := &desk{agenda: a, lease: lease, read: lease.Position, open: map[string]*Instance{}, busy: map[string]*job{}, idle: map[string]int64{}, tended: asked,
		finished: make(chan *job, a.engine.cfg.Calls)}
	d.trail = eventstore.NewTrail(lease, eventstore.Range{Category: a.family.category()})
	d.ctx, d.cancel = context.WithCancelCause(ctx)
	d.expire = time.AfterFunc(time.Until(asked.Add(lease.Lives)), func() { d.cancel(eventstore.ErrLeaseLost) })
	return d
}

// run works until ctx ends, the lease is lost, or the partition is another process's.
func (d *desk) run() (err error) {
	defer func() {
		d.cancel(nil)
		d.expire.Stop()
		for range d.busy {
			<-d.finished
		}
		if err == nil {
			d.yield()
		}
	}()
	for d.ctx.Err() == nil {
		d.ended()
		if err := d.look(); lost(err) {
			return err
		} else if err != nil {
			d.agenda.warn(d.ctx, "reading instances failed, and will be tried again", err)
		}
		d.begin(time.Now())
		if d.toRenew() {
			if left, err := d.renew(); left || lost(err) {
				return err
			}
		}
		d.wait()
	}
	if errors.Is(context.Cause(d.ctx), eventstore.ErrLeaseLost) {
		return eventstore.ErrLeaseLost
	}
	return nil
}

// lost reports whether a desk cannot go on with what it knows: the lease is another's, or the database has lost again what was read.
func lost(err error) bool {
	return errors.Is(err, eventstore.ErrLeaseLost) || errors.Is(err, eventstore.ErrSetBack)
}

// wait returns when there may be something to do.
func (d *desk) wait() {
	pause := d.agenda.engine.cfg.Poll
	if len(d.dues) > 0 && len(d.busy) < d.agenda.engine.cfg.Calls {
		pause = min(pause, max(time.Until(d.dues[0].at), time.Millisecond))
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-d.agenda.news[d.lease.Part]:
	case j := <-d.finished:
		d.over(j)
	case <-timer.C:
	case <-d.ctx.Done():
	}
}

// ended enters which jobs have ended.
func (d *desk) ended() {
	for {
		select {
		case j := <-d.finished:
			d.over(j)
		default:
			return
		}
	}
}

// over enters that a job has ended. What it appended is in the log by now, and is read before the instance is looked at.
func (d *desk) over(j *job) {
	delete(d.busy, j.key)
	if j.idle && d.open[j.key] != nil {
		d.idle[j.key] = j.version
	}
	at := time.Now()
	if j.failed {
		at = at.Add(again)
	}
	d.note(at, j.key)
}

// look reads what was appended. At first that may take longer than the lease lasts, which is renewed meanwhile.
func (d *desk) look() error {
	f := d.agenda.family
	for event, err := range d.agenda.engine.cfg.Store.ReadCategory(d.ctx, f.category(), eventstore.ReadOptions{From: d.read + 1}) {
		if err != nil {
			return err
		}
		if d.agenda.partOf(event.Stream.ID) == d.lease.Part {
			r, err := recorded(&event)
			if err != nil {
				d.agenda.warn(d.ctx, "an event is left out", err)
			} else {
				d.enter(&r.Instance)
			}
		}
		d.read = event.Position
		d.trail.Add(&event)
		if d.toRenew() {
			if err := d.prolong(); err != nil {
				return err
			}
		}
	}
	return nil
}

// enter has an instance in place of what it was before.
func (d *desk) enter(i *Instance) {
	if i.Status.Ended() {
		delete(d.open, i.Key)
		delete(d.idle, i.Key)
		if j := d.busy[i.Key]; j != nil {
			j.cancel()
		}
		return
	}
	d.open[i.Key] = i
	d.tend(i.Key)
}

// tend notes when an instance has to be looked at. An instance that is looked at too early, or once too often, comes to no harm.
func (d *desk) tend(key string) {
	i := d.open[key]
	if i == nil {
		return
	}
	if i.Due != nil {
		d.note(*i.Due, key)
	}
	if w := i.Work; w != nil && w.Due != nil {
		d.note(*w.Due, key)
	}
	if j := d.busy[key]; j != nil && j.work != attemptOf(i.Work) {
		j.cancel() // what it does is not waited for any more
	}
}

// note enters that an instance has to be looked at then.
func (d *desk) note(at time.Time, key string) {
	heap.Push(&d.dues, due{at, key})
	if len(d.dues) <= d.most {
		return
	}
	soon := time.Now().Add(again) // what failed has no other due
	d.dues = slices.DeleteFunc(d.dues, func(u due) bool {
		i := d.open[u.key]
		return i == nil || u.at.After(soon) && !i.dueAt(u.at)
	})
	heap.Init(&d.dues)
	d.most = 2*len(d.dues) + 1000
}

// dueAt reports whether an instance has to be looked at then.
func (i *Instance) dueAt(at time.Time) bool {
	return i.Due != nil && i.Due.Equal(at) || i.Work != nil && i.Work.Due != nil && i.Work.Due.Equal(at)
}

func attemptOf(w *Work) string {
	if w == nil {
		return ""
	}
	return fmt.Sprintf("%s.%d", w.ID, w.Attempt)
}

// begin begins the jobs that are due.
func (d *desk) begin(now time.Time) {
	d.giveUp(now)
	for len(d.dues) > 0 && !d.dues[0].at.After(now) && len(d.busy) < d.agenda.engine.cfg.Calls {
		i := d.open[d.dues[0].key]
		heap.Pop(&d.dues)
		if i == nil || d.busy[i.Key] != nil { // it is tended again when the job has ended
			continue
		}
		nothing := d.idle[i.Key] == i.Version
		delete(d.idle, i.Key)
		if nothing { // as where the definition has lost a timeout, and its version was not raised
			d.note(now.Add(again), i.Key)
			continue
		}
		if d.agenda.engine.waits(d.agenda.family, i) {
			d.note(now.Add(again), i.Key)
			continue
		}
		switch w := i.Work; {
		case d.timesOut(i, now): // before a call that is due as well, as after a pause of the program
			d.job(i, "", d.fire)
		case w != nil && w.Due != nil && !w.Due.After(now) && w.Target != "":
			d.job(i, attemptOf(w), d.call)
		case w != nil && w.Due != nil && !w.Due.After(now):
			d.job(i, attemptOf(w), d.repeat)
		case i.Due != nil && !i.Due.After(now):
			d.job(i, "", d.fire)
		}
	}
}

// giveUp cancels the calls of states that have lasted too long. What such a call did is not known, and is undone as if it was done.
func (d *desk) giveUp(now time.Time) {
	for key, j := range d.busy {
		if i := d.open[key]; j.work != "" && i != nil && d.timesOut(i, now) {
			j.cancel()
		}
	}
}

// timesOut reports whether the state of an instance has lasted too long. A time that the definition has no more use for holds back no call.
func (d *desk) timesOut(i *Instance, now time.Time) bool {
	if i.Due == nil || i.Due.After(now) {
		return false
	}
	s := d.agenda.family.versions[i.Definition]
	if s == nil {
		return false
	}
	st := s.byName[i.State]
	return st != nil && find(st.on, KindTimeout, "") != nil
}

// job has something done for an instance.
func (d *desk) job(i *Instance, work string, do func(ctx context.Context, i Instance) error) {
	ctx, cancel := context.WithCancel(d.ctx)
	j := &job{key: i.Key, version: i.Version, work: work, cancel: cancel}
	d.busy[i.Key] = j
	go func() {
		err := do(ctx, *i)
		j.idle = errors.Is(err, errIdle)
		j.failed = err != nil && !j.idle && ctx.Err() == nil
		if j.failed {
			d.agenda.warn(ctx, "an instance of a saga could not be gone on with, and will be tried again", fmt.Errorf("%q: %w", i.Key, err))
		}
		cancel()
		d.finished <- j
	}()
}

// errIdle ends a job of which nothing was entered.
var errIdle = errors.New("the instance takes nothing")

func (d *desk) deliver(ctx context.Context, key string, m Message) error {
	turn, err := d.agenda.engine.deliver(ctx, d.agenda.family, key, m)
	if err == nil && turn.Nothing {
		err = errIdle
	}
	return err
}

// fire tells an instance that its state has lasted too long.
func (d *desk) fire(ctx context.Context, i Instance) error {
	return d.deliver(ctx, i.Key, Message{ID: fmt.Sprintf("%s.%d", KindTimeout, i.Entry), Kind: KindTimeout, Entry: i.Entry})
}

// repeat tells an instance that its undo was not confirmed in time.
func (d *desk) repeat(ctx context.Context, i Instance) error {
	return d.deliver(ctx, i.Key, Message{ID: fmt.Sprintf("%s.%s.%d", i.Work.ID, KindRepeat, i.Version), Kind: KindRepeat, Work: i.Work.ID})
}

// call makes the call that an instance waits for, and tells it what came of that.
func (d *desk) call(ctx context.Context, i Instance) error {
	w := i.Work
	timeout := d.agenda.family.newest.retry.Timeout
	if s := d.agenda.family.versions[i.Definition]; s != nil {
		timeout = s.retry.Timeout
	}
	calling, cancel := context.WithTimeout(ctx, timeout)
	answer, err := d.agenda.engine.cfg.Caller.Call(calling, w.Target, w.Method, w.ID, w.Body)
	cancel()
	if ctx.Err() != nil {
		return ctx.Err() // it is not waited for, or is another process's to make
	}
	m := Message{Kind: KindAnswer, Work: w.ID, Body: answer}
	var refused *Refusal
	switch {
	case errors.As(err, &refused):
		m.Kind = KindRefusal
		if m.Body, err = json.Marshal(refused); err != nil {
			m.Kind, m.Body = KindFailure, failing("the refusal is not JSON: "+err.Error())
		}
	case err != nil:
		m.Kind, m.Body = KindFailure, failing(err.Error())
	case len(answer) > 0 && !answer.IsValid():
		m.Kind, m.Body = KindFailure, failing("the answer is not JSON")
	}
	m.ID = fmt.Sprintf("%s.%s.%d", w.ID, m.Kind, i.Version)
	return d.deliver(ctx, i.Key, m)
}

func (d *desk) toRenew() bool { return time.Since(d.tended) > d.lease.Lives/3 }

// renew prolongs the lease, and brings forward what holds it back. Left: the partition is to be another process's.
func (d *desk) renew() (left bool, err error) {
	if err := d.prolong(); err != nil {
		return false, err
	}
	d.bring()
	return d.agenda.tooMany(), nil
}

// prolong prolongs the lease, and enters the position below which no instance is open.
func (d *desk) prolong() error {
	a := d.agenda
	if err := a.reckon(d.ctx); err != nil {
		a.warn(d.ctx, "a consumer cannot enlist, and will try again", err)
	}
	asked, to := time.Now(), d.trail.To(d.position())
	if err := a.marks().Advance(d.ctx, d.lease, to, nil); err != nil {
		if !lost(err) {
			a.warn(d.ctx, "a lease cannot be renewed, and will be tried again", err)
		}
		return err
	}
	d.trail.Arrived(to)
	d.tended = asked
	d.expire.Reset(time.Until(asked.Add(d.lease.Lives)))
	return nil
}

// position is up to which nothing is open.
func (d *desk) position() int64 {
	position, s := d.read, summary{}
	for _, i := range d.open {
		position = min(position, i.Position-1)
		if s.open++; i.Status == Parked {
			s.parked++
		} else if s.oldest.IsZero() || i.Started.Before(s.oldest) {
			s.oldest = i.Started
		}
	}
	d.agenda.summarize(d.lease.Part, s)
	return max(position, d.lease.Position)
}

// bring writes anew what lies far back, so that the position can go on. Far is several times further than open instances need to lie one beside the
// other: nearer, to write the oldest would put the next one too far back, for ever.
func (d *desk) bring() {
	far := max(d.agenda.engine.behind, 4*int64(len(d.open))*int64(len(d.agenda.news)))
	for _, i := range d.open {
		if i.Position < d.read-far && d.busy[i.Key] == nil && len(d.busy) < d.agenda.engine.cfg.Calls {
			d.job(i, attemptOf(i.Work), func(ctx context.Context, i Instance) error {
				return d.deliver(ctx, i.Key, Message{ID: fmt.Sprintf("%s.%d", kindKept, i.Version), Kind: kindKept})
			})
		}
	}
}

// yield gives the partition to others.
func (d *desk) yield() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(d.ctx), d.lease.Lives)
	defer cancel()
	err := d.agenda.marks().Advance(ctx, d.lease, d.trail.To(d.position()), nil)
	if err == nil {
		err = d.agenda.marks().Yield(ctx, d.lease)
	}
	if err != nil && !lost(err) {
		d.agenda.engine.cfg.Logger.WarnContext(ctx, "a partition cannot be given up; others wait for its lease to end", "subscription", d.agenda.name, "error", err)
	}
}
