package migration

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/services/jsonbody"
	"github.com/bannou-mesh/bannou/services/migration/migrationapi"
	"github.com/bannou-mesh/bannou/services/problem"
)

// The span that is looked back on, when none is asked for, and the limits of it.
const (
	defaultWindow = 15 * time.Minute
	leastWindow   = 10 * time.Second
	mostWindow    = time.Hour
)

// restartNote says which restart makes a decision so.
const restartNote = "restart this node (and each node that reads the same file); until then it runs as before"

// Mount registers /migration/*.
func (s *Service) Mount(mux *http.ServeMux) error {
	migrationapi.HandlerWithOptions(endpoints{s}, migrationapi.StdHTTPServerOptions{BaseRouter: mux, ErrorHandlerFunc: jsonbody.WriteDecodeError})
	return nil
}

// endpoints are the service's operations as handlers.
type endpoints struct{ *Service }

var _ migrationapi.ServerInterface = endpoints{}

// answer reads a request of type Q, has it done within the time of one operation, and answers with what comes of it.
func answer[Q, A any](e endpoints, w http.ResponseWriter, r *http.Request, do func(ctx context.Context, request *Q) (*A, error)) {
	request, err := jsonbody.Decode[Q](jsonbody.Limits{MaxBytes: 64 << 10}, w, r)
	if err != nil {
		problem.Write(w, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), e.cfg.Timeout)
	defer cancel()
	response, err := do(ctx, request)
	if err != nil {
		problem.Write(w, err)
		return
	}
	jsonbody.Write(w, response)
}

// GetMigrationStatus is POST /migration/status.
func (e endpoints) GetMigrationStatus(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, e.status)
}

// PlanMigration is POST /migration/plan.
func (e endpoints) PlanMigration(w http.ResponseWriter, r *http.Request) { answer(e, w, r, e.plan) }

// SwitchBackend is POST /migration/switch.
func (e endpoints) SwitchBackend(w http.ResponseWriter, r *http.Request) { answer(e, w, r, e.change) }

// RollbackBackend is POST /migration/rollback.
func (e endpoints) RollbackBackend(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, e.rollback)
}

// describe is an item as callers see it.
func (s *Service) describe(ctx context.Context, item *Item, decided []Decision, window time.Duration) migrationapi.MigrationItem {
	d := about(decided, item)
	way, overruled := item.next(d)
	out := migrationapi.MigrationItem{
		Kind: item.Kind, Name: item.Name, Block: item.Block, Running: item.Running, Next: way, Engine: item.Engine,
		Setting: item.Setting, Overruled: overruled,
	}
	if d != nil {
		out.DecidedAt, out.Forced = d.At, d.Forced
	}
	if overruled && item.Setting == "" {
		out.Setting = item.NoDapr
	}
	var found *migrationapi.MigrationComparison
	if c, ok := s.cfg.Compared(*item, window); ok {
		out.Comparison, found = c, &c
	}
	out.Safe, out.Why = s.verdict(ctx, item, other(item.Running), found)
	return out
}

// atOnce is how many items are looked at together: a place that is away takes its time, and a request has its own.
const atOnce = 16

// describeAll describes items, in their order.
func (s *Service) describeAll(ctx context.Context, items []Item, decided []Decision, window time.Duration) []migrationapi.MigrationItem {
	all := make([]migrationapi.MigrationItem, len(items))
	var looks sync.WaitGroup
	turns := make(chan struct{}, atOnce)
	for i := range items {
		turns <- struct{}{}
		looks.Go(func() {
			defer func() { <-turns }()
			all[i] = s.describe(ctx, &items[i], decided, window)
		})
	}
	looks.Wait()
	return all
}

func about(decided []Decision, item *Item) *Decision {
	if i := slices.IndexFunc(decided, func(d Decision) bool { return d.of(item.Kind, item.Name, item.Block) }); i >= 0 {
		return &decided[i]
	}
	return nil
}

func (s *Service) status(ctx context.Context, r *migrationapi.MigrationStatusRequest) (*migrationapi.MigrationStatus, error) {
	window := time.Duration(float64(r.Seconds) * float64(time.Second))
	switch {
	case r.Kind != "" && !slices.Contains([]string{KindStore, KindService, KindTopic}, r.Kind):
		return nil, problem.New(problem.InvalidMember, "member kind: %.64q is no kind of item: choose store, service or topic", r.Kind).At("kind")
	case r.Seconds == 0:
		window = defaultWindow
	case window < leastWindow || window > mostWindow:
		return nil, problem.New(problem.InvalidMember, "member seconds: %g is not from 10 to 3600", r.Seconds).At("seconds")
	}
	decided, err := s.cfg.File.Read()
	if err != nil {
		return nil, err
	}
	out := &migrationapi.MigrationStatus{AppID: s.cfg.AppID, InstanceID: s.cfg.InstanceID, File: s.cfg.File.Path(), Items: []migrationapi.MigrationItem{}}
	items := slices.DeleteFunc(s.cfg.Items(ctx), func(item Item) bool {
		return r.Kind != "" && r.Kind != item.Kind || r.Name != "" && r.Name != item.Name
	})
	out.Items = append(out.Items, s.describeAll(ctx, items, decided, window)...)
	if len(out.Items) == 0 && r.Name != "" {
		return nil, problem.New(problem.NotFound, "this node has no %.64s of the name %.128q", noun(r.Kind), r.Name).At("name")
	}
	return out, nil
}

func noun(kind string) string {
	if kind == "" {
		return "item"
	}
	return kind
}

// plan lists what is on Dapr at the next start: calls before stores, so that no instance is replaced that others call by Dapr's names, stores
// before messaging, those that are safe before the others.
func (s *Service) plan(ctx context.Context, _ *migrationapi.PlanMigrationRequest) (*migrationapi.MigrationPlan, error) {
	decided, err := s.cfg.File.Read()
	if err != nil {
		return nil, err
	}
	out := &migrationapi.MigrationPlan{Steps: []migrationapi.MigrationStep{}, Obstacles: s.cfg.Obstacles(ctx)}
	items := s.cfg.Items(ctx)
	for i, d := range s.describeAll(ctx, items, decided, defaultWindow) {
		item := &items[i]
		if d.Next != Dapr {
			continue
		}
		step := migrationapi.MigrationStep{Kind: d.Kind, Name: d.Name, Block: d.Block, From: Dapr, To: Native, Safe: d.Safe, Why: d.Why, Obstacles: slices.Clone(item.Obstacles)}
		if d.Setting != "" {
			step.Obstacles = append(step.Obstacles, pinned(item))
		}
		if step.Obstacles == nil {
			step.Obstacles = []string{}
		}
		out.Steps = append(out.Steps, step)
	}
	if out.Obstacles == nil {
		out.Obstacles = []string{}
	}
	rank := map[string]int{BlockMesh: 0, BlockState: 1, BlockMessaging: 2}
	slices.SortStableFunc(out.Steps, func(a, b migrationapi.MigrationStep) int {
		if d := rank[a.Block] - rank[b.Block]; d != 0 {
			return d
		}
		return score(&a) - score(&b)
	})
	return out, nil
}

func score(s *migrationapi.MigrationStep) int {
	n := len(s.Obstacles)
	if !s.Safe {
		n++
	}
	return n
}

// pinned says that a setting is in the way of a decision.
func pinned(item *Item) string {
	return item.Setting + " chooses " + item.Chosen + ", and settings count more than decisions: take it away, or change it"
}

// find gives the items that a request names, or says why there are none.
func (s *Service) find(ctx context.Context, kind, name, block string) ([]Item, error) {
	switch {
	case kind == "":
		return nil, problem.Missing("kind")
	case kind != KindStore && kind != KindService && kind != KindTopic:
		return nil, problem.New(problem.InvalidMember, "member kind: %.64q is no kind of item: choose store, service or topic", kind).At("kind")
	case name == "":
		return nil, problem.Missing("name")
	case kind == KindStore && block != "" && block != BlockState, kind == KindTopic && block != "" && block != BlockMessaging, kind == KindService && block != "" && block != BlockMessaging && block != BlockMesh:
		return nil, problem.New(problem.InvalidMember, "member block: %.64q: a service has messaging and mesh, a store has state, a topic messaging", block).At("block")
	}
	var found []Item
	for _, item := range s.cfg.Items(ctx) {
		if item.Kind == kind && item.Name == name && (block == "" || block == item.Block) {
			found = append(found, item)
		}
	}
	if len(found) == 0 && kind == KindService && block == BlockMesh && s.cfg.Target != nil { // whoever may be called, known to this node or not
		if err := mesh.ValidateName("name", name); err != nil {
			return nil, problem.New(problem.InvalidMember, "member name: %s", err).At("name")
		}
		found = append(found, s.cfg.Target(name))
	}
	if len(found) == 0 {
		return nil, problem.New(problem.NotFound, "this node has no %s of the name %.128q; `bannou migrate status` lists what it has", kind, name).At("name")
	}
	return found, nil
}

func (s *Service) change(ctx context.Context, r *migrationapi.SwitchBackendRequest) (*migrationapi.SwitchBackendResponse, error) {
	if r.To != "" && r.To != Native && r.To != Dapr {
		return nil, problem.New(problem.InvalidMember, "member to: %.64q is not a way: choose native or dapr", r.To).At("to")
	}
	items, err := s.find(ctx, r.Kind, r.Name, r.Block)
	if err != nil {
		return nil, err
	}
	return s.decide(ctx, items, func(item *Item, before *Decision) (Decision, error) {
		d := Decision{To: cmp.Or(r.To, Native)} // never the way that it happens not to have now: a request that is made twice would undo itself
		var found *migrationapi.MigrationComparison
		if c, ok := s.cfg.Compared(*item, defaultWindow); ok {
			found = &c
			s.tellOf(ctx, item, events.StoreMigrationStatusStarted, found, "")
		} else {
			s.tellOf(ctx, item, events.StoreMigrationStatusStarted, nil, "")
		}
		if safe, why := s.verdict(ctx, item, d.To, found); !safe {
			if d.Forced = r.Force; !d.Forced {
				s.tellOf(ctx, item, events.StoreMigrationStatusFailed, found, why)
				return d, problem.New(problem.Conflict, "it is not safe to switch the %s %q (%s) to %s: %s; or give --force", item.Kind, item.Name, item.Block, d.To, why)
			}
		}
		return d, nil
	}, func(item *Item, before *Decision, to string) string {
		way, _ := item.next(before)
		if before != nil && way == to { // said again: the way back stays
			return before.From
		}
		return way
	})
}

func (s *Service) rollback(ctx context.Context, r *migrationapi.RollbackBackendRequest) (*migrationapi.SwitchBackendResponse, error) {
	items, err := s.find(ctx, r.Kind, r.Name, r.Block)
	if err != nil {
		return nil, err
	}
	decided, err := s.cfg.File.Read()
	if err != nil {
		return nil, err
	}
	items = slices.DeleteFunc(items, func(item Item) bool { return about(decided, &item) == nil })
	if len(items) == 0 {
		return nil, problem.New(problem.NotFound, "nothing was decided about the %s %q that could be undone", r.Kind, r.Name).At("name")
	}
	return s.decide(ctx, items, func(item *Item, before *Decision) (Decision, error) {
		s.tellOf(ctx, item, events.StoreMigrationStatusStarted, nil, "")
		return Decision{To: before.From}, nil
	}, func(_ *Item, _ *Decision, to string) string { return to }) // made twice, it does not go forth again
}

// decide makes a decision about each item, and keeps all of them or none. The way back, from, is found when it is kept: choosing takes its time, in which
// another process may decide.
func (s *Service) decide(ctx context.Context, items []Item, choose func(item *Item, before *Decision) (Decision, error), from func(item *Item, before *Decision, to string) string) (*migrationapi.SwitchBackendResponse, error) {
	s.deciding.Lock()
	defer s.deciding.Unlock()
	decided, err := s.cfg.File.Read()
	if err != nil {
		return nil, err
	}
	var made []Decision
	for i := range items {
		item := &items[i]
		d, err := choose(item, about(decided, item))
		if err != nil {
			return nil, err
		}
		if item.Setting != "" && item.Chosen != d.To {
			return nil, s.refuse(ctx, item, pinned(item))
		}
		if d.To == Dapr && item.NoDapr != "" {
			return nil, s.refuse(ctx, item, item.NoDapr+", and settings count more than decisions: take it away first")
		}
		d.Kind, d.Name, d.Block, d.At = item.Kind, item.Name, item.Block, s.cfg.Now().UTC()
		made = append(made, d)
	}
	if err := s.cfg.File.update(func(all []Decision) ([]Decision, error) {
		for i := range made {
			made[i].From = from(&items[i], about(all, &items[i]), made[i].To)
		}
		return entered(all, made)
	}); err != nil {
		for i := range items {
			s.tellOf(ctx, &items[i], events.StoreMigrationStatusFailed, nil, "the decision could not be kept")
		}
		return nil, err
	}
	out := &migrationapi.SwitchBackendResponse{Restart: restartNote}
	if decided, err = s.cfg.File.Read(); err != nil {
		return nil, err
	}
	for i := range items {
		s.tellOf(ctx, &items[i], events.StoreMigrationStatusProgress, nil, "")
		s.cfg.Logger.InfoContext(ctx, "a backend was decided; the next start follows it", "kind", made[i].Kind, "name", made[i].Name, "block", made[i].Block,
			"to", made[i].To, "forced", made[i].Forced)
		out.Items = append(out.Items, s.describe(ctx, &items[i], decided, defaultWindow))
	}
	return out, nil
}

// refuse tells of a switch that a setting is in the way of.
func (s *Service) refuse(ctx context.Context, item *Item, why string) error {
	s.tellOf(ctx, item, events.StoreMigrationStatusFailed, nil, why)
	return problem.New(problem.Conflict, "the %s %q (%s): %s", item.Kind, item.Name, item.Block, why)
}

// mostTold bounds what a request waits for a bus that does not take what it tells: it goes on without.
const mostTold = 2 * time.Second

// tellOf tells of a store; of other items nobody is told.
func (s *Service) tellOf(ctx context.Context, item *Item, status events.StoreMigrationStatus, found *migrationapi.MigrationComparison, failure string) {
	if item.Kind != KindStore {
		return
	}
	var compared int64
	if found != nil {
		compared = found.Compared
	}
	_ = s.tell(ctx, mostTold, item.Name, status, compared, compared, failure)
}
