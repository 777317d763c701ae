package sagas_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/rabbitbus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/mysqlevents"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
	"github.com/bannou-mesh/bannou/pkg/state/redisstate"
	"github.com/bannou-mesh/bannou/sagas"
	"github.com/bannou-mesh/bannou/services/accounts"
	"github.com/bannou-mesh/bannou/services/auth"
	"github.com/bannou-mesh/bannou/services/gamesession"
	"github.com/bannou-mesh/bannou/services/host"
	"github.com/bannou-mesh/bannou/services/permissions"
	sagassvc "github.com/bannou-mesh/bannou/services/sagas"
	"github.com/bannou-mesh/bannou/services/workflows"
)

// servicesDescribed is the environment variable with what a process of the suite's services needs to know, a place.
const servicesDescribed = "BANNOU_SAGAS_SERVICES"

// A place says which services a process runs, where they and the others are, and where it ends once it was told to.
type place struct {
	DSN, Rabbit, Redis string
	Services           []string
	Addresses          map[string]string // host:port of each service
	ConfirmWithin      time.Duration
	Point              point
}

// suiteServices are those that a saga of the suite goes through.
func suiteServices() []string {
	return []string{"accounts", "auth", "permissions", "game-session", "sagas"}
}

// eraseAfter is how long deleted accounts are kept here.
const eraseAfter = 50 * time.Millisecond

// A suite is what services have in common.
type suite struct {
	bus     *bus.Bus
	factory *state.Factory
	log     *eventstore.Store
	mysql   *mysqlstate.Driver
}

// newSuite connects to the servers of a place. Everything is done by way of a killer, nil for who kills nobody.
func newSuite(p place, k *killer) (*suite, error) {
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	if k == nil {
		k = new(killer)
	}
	broker, err := rabbitbus.New(rabbitbus.Config{URLs: []string{p.Rabbit}})
	if err != nil {
		return nil, err
	}
	s := new(suite)
	if s.bus, err = bus.New(deadlyBus{broker, k}, bus.Config{Logger: logger, RetryDelay: 100 * time.Millisecond, RetryMaxAttempts: 100}); err != nil {
		return nil, err
	}
	redis, err := redisstate.New(redisstate.Config{URLs: []string{p.Redis}})
	if err != nil {
		return nil, err
	}
	if s.mysql, err = mysqlstate.New(mysqlstate.Config{DSN: p.DSN}); err != nil {
		return nil, err
	}
	log, err := mysqlevents.Open(s.mysql, eventstore.Config{Table: "suite_events"})
	if err != nil {
		return nil, err
	}
	s.log = eventstore.New(deadlyLog{log.Engine(), k}, eventstore.Config{Logger: logger})
	s.factory, err = state.NewFactory([]state.StoreConfig{
		{Name: accounts.ListStore, Backend: "mysql", Indexes: accounts.ListIndexes()}, {Name: auth.CredentialStore, Backend: "mysql"},
		{Name: auth.KeyStore, Backend: "mysql"}, {Name: auth.SessionStore, Backend: "redis"}, {Name: permissions.SessionStore, Backend: "redis"},
		{Name: permissions.ServiceStore, Backend: "mysql"}, {Name: gamesession.Store, Backend: "mysql"},
	}, []state.Driver{deadlyState{redis, k}, deadlyState{s.mysql, k}}, state.Options{})
	return s, err
}

// service makes a service of the suite.
func (s *suite) service(name string, p place, calls *http.Client, k *killer) (host.Service, error) {
	switch name {
	case "accounts":
		return accounts.New(accounts.Config{Log: s.log, Factory: s.factory, Bus: s.bus, Lease: lease})
	case "auth":
		return auth.New(auth.Config{
			Factory: s.factory, Bus: s.bus, Accounts: peers{place: p, http: calls}, Hashing: auth.Hashing{MemoryKiB: 64, Iterations: 1},
			Throttle: auth.Throttle{PerAccount: 1 << 20, PerAddress: 1 << 20},
		})
	case "permissions":
		return permissions.New(permissions.Config{Factory: s.factory, Bus: s.bus})
	case "game-session":
		return gamesession.New(gamesession.Config{Factory: s.factory, Bus: s.bus, ConfirmWithin: p.ConfirmWithin})
	case "sagas":
		all, err := suiteSagas(p.ConfirmWithin)
		if err != nil {
			return nil, err
		}
		engine, err := sagas.New(sagas.Config{Store: s.log, Bus: s.bus, Caller: deadlyCaller{peers{place: p, http: calls}, k}, Sagas: all, Lease: lease, Poll: 20 * time.Millisecond})
		return sagassvc.New(sagassvc.Config{Engine: engine}), err
	default:
		return nil, fmt.Errorf("no service is called %q", name)
	}
}

func suiteSagas(confirmWithin time.Duration) (all []*sagas.Saga, err error) {
	registration, err := workflows.Registration().Build()
	if err != nil {
		return nil, err
	}
	deletion, err := workflows.Deletion(eraseAfter, true).Build()
	if err != nil {
		return nil, err
	}
	join, err := workflows.Join(confirmWithin).Build()
	return []*sagas.Saga{registration, deletion, join}, err
}

// runServices is a process of services. It says when they are there, is told to be killed from then on at its point, and runs until it is killed.
func runServices(raw string) error {
	var p place
	if err := json.Unmarshal([]byte(raw), &p); err != nil {
		return err
	}
	k := &killer{point: p.Point}
	s, err := newSuite(p, k)
	if err != nil {
		return err
	}
	h, err := host.New(host.Config{Listen: p.Addresses[p.Services[0]], Middleware: k.answers})
	if err != nil {
		return err
	}
	for _, name := range p.Services {
		service, err := s.service(name, p, &http.Client{Timeout: 10 * time.Second}, k)
		if err != nil {
			return err
		}
		if err := h.Add(service); err != nil {
			return err
		}
	}
	ctx := context.Background()
	ran := make(chan error, 3)
	go func() { ran <- s.bus.Run(ctx) }()
	<-s.bus.Running()
	awaitQueues(ctx, s.bus)
	go func() { ran <- h.Run(ctx) }()
	select {
	case <-h.Started():
	case err := <-ran:
		return err
	}
	_, _ = fmt.Fprintln(os.Stdout, "running")
	go func() {
		for orders := bufio.NewScanner(os.Stdin); orders.Scan(); {
			k.armed.Store(true)
			_, _ = fmt.Fprintln(os.Stdout, "armed")
		}
		ran <- io.EOF // who started it is gone
	}()
	return <-ran
}

// peers are the services of a place, wherever they are.
type peers struct {
	place place
	http  *http.Client
	looks bool // these requests are a test's look: nothing that is part of a saga
}

// lookHeader marks a test's look.
const lookHeader = "Bannou-Test-Look"

// A refusal is the answer of a service that did not do as it was asked.
type refusal struct {
	Status int
	Code   string `json:"code"`
	Detail string `json:"detail"`
	body   []byte
}

func (r *refusal) Error() string { return fmt.Sprintf("%d %s: %s", r.Status, r.Code, r.Detail) }

// post asks a service for something.
func (p peers) post(ctx context.Context, service, path string, body, answer any, key string) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+p.place.Addresses[service]+"/"+path, bytes.NewReader(raw))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", key)
	if p.looks {
		req.Header.Set(lookHeader, "true")
	}
	resp, err := p.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if raw, err = io.ReadAll(resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		r := &refusal{Status: resp.StatusCode, body: raw}
		_ = json.Unmarshal(raw, r)
		return r
	}
	return json.Unmarshal(raw, answer)
}

// Call is what a saga's engine does.
func (p peers) Call(ctx context.Context, target, method, key string, body jsontext.Value) (jsontext.Value, error) {
	var answer json.RawMessage
	err := p.post(ctx, target, method, json.RawMessage(body), &answer, key)
	if r, is := errors.AsType[*refusal](err); is && r.Status < http.StatusInternalServerError && r.Status != http.StatusTooManyRequests {
		return nil, &sagas.Refusal{Status: r.Status, Code: r.Code, Detail: r.Detail, Body: jsontext.Value(r.body)}
	}
	return jsontext.Value(answer), err
}

// Create, ByEmail and Get are what the auth service asks for.
func (p peers) Create(ctx context.Context, a auth.Account) (auth.Account, error) {
	a.ExpectsCredentials = true
	return p.account(ctx, "register", a)
}

func (p peers) ByEmail(ctx context.Context, email string) (auth.Account, error) {
	return p.account(ctx, "by-email", auth.Account{Email: email})
}

func (p peers) Get(ctx context.Context, id string) (auth.Account, error) {
	return p.account(ctx, "get", auth.Account{ID: id})
}

func (p peers) account(ctx context.Context, operation string, request auth.Account) (a auth.Account, err error) {
	err = p.post(ctx, "accounts", "accounts/"+operation, request, &a, "")
	if r, is := errors.AsType[*refusal](err); is {
		switch {
		case r.Status == http.StatusNotFound:
			err = auth.ErrNoAccount
		case r.Status == http.StatusConflict && operation == "register":
			err = auth.ErrTaken
		}
	}
	return a, err
}

// without are the services but one.
func without(service string) []string {
	return slices.DeleteFunc(suiteServices(), func(s string) bool { return s == service })
}
