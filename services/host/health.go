package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/bannou-mesh/bannou/services/problem"
)

type dependency struct {
	name  string
	check func(ctx context.Context) error
}

// readiness is the body of /readyz.
type readiness struct {
	Status       string  `json:"status"` // ready, degraded, starting, draining, notReady
	Dependencies []check `json:"dependencies"`
	Services     []check `json:"services"`
}

// check is one line of it.
type check struct {
	Name    string             `json:"name"`
	Status  string             `json:"status"` // ready, degraded, notReady
	Error   string             `json:"error,omitempty"`
	Millis  float64            `json:"millis"` // how long the check took
	Figures map[string]float64 `json:"figures,omitempty"`
}

// A degradedError is a lack that does not keep the node from doing its work.
type degradedError struct{ err error }

func (e *degradedError) Error() string { return e.err.Error() }
func (e *degradedError) Unwrap() error { return e.err }

// Degraded marks the error of a check as one that does not make the node unready: /readyz shows it, and answers 200, so
// that callers go on to come. Degraded of nil is nil.
func Degraded(err error) error {
	if err == nil {
		return nil
	}
	return &degradedError{err}
}

// mountOwn mounts the paths of the host itself.
func (h *Host) mountOwn() {
	h.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"status": "alive"})
	})
	h.mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		state := h.readiness(r.Context())
		status := http.StatusOK
		if state.Status != ready && state.Status != degraded {
			status = http.StatusServiceUnavailable
			w.Header().Set("Retry-After", "1")
		}
		writeJSON(w, status, state)
	})
	h.mux.HandleFunc("GET /openapi.yaml", func(w http.ResponseWriter, _ *http.Request) {
		document, err := h.document()
		if err != nil {
			problem.Write(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/yaml")
		_, _ = w.Write(document)
	})
	if h.cfg.Metrics != nil {
		h.mux.Handle("GET /metrics", h.cfg.Metrics.Handler())
	}
}

// own reports whether a pattern is the host's, which answers in every phase.
func own(pattern string) bool {
	switch pattern {
	case "GET /healthz", "GET /readyz", "GET /openapi.yaml", "GET /metrics":
		return true
	default:
		return false
	}
}

// isProbe reports whether a pattern is for those who look after the node, and tells nothing of what is in it.
func isProbe(pattern string) bool { return own(pattern) && pattern != "GET /openapi.yaml" }

// readiness asks all dependencies and services at once, each within ReadyTimeout.
func (h *Host) readiness(ctx context.Context) readiness {
	h.mu.Lock()
	services, dependencies := h.services, h.dependencies
	h.mu.Unlock()

	state := readiness{
		Status:       ready,
		Dependencies: make([]check, len(dependencies)),
		Services:     make([]check, len(services)),
	}
	phase := h.phase.Load()
	var wg sync.WaitGroup
	for i, d := range dependencies {
		wg.Go(func() { state.Dependencies[i] = h.check(ctx, d.name, d.check) })
	}
	for i, s := range services {
		ask := s.Ready
		if phase < phaseServing {
			ask = func(context.Context) error { return fmt.Errorf("not all services have started") }
		}
		wg.Go(func() {
			state.Services[i] = h.check(ctx, s.Name(), ask)
			if m, ok := s.(Measured); ok {
				state.Services[i].Figures = m.Figures()
			}
		})
	}
	wg.Wait()
	switch {
	case phase < phaseServing:
		state.Status = "starting"
	case phase > phaseServing:
		state.Status = "draining"
	default:
		state.Status = worst(append(state.Dependencies, state.Services...))
	}
	return state
}

// The outcomes of a check, and of all of them.
const (
	ready    = "ready"
	degraded = "degraded"
	notReady = "notReady"
)

func worst(checks []check) string {
	status := ready
	for _, c := range checks {
		switch c.Status {
		case notReady:
			return notReady
		case degraded:
			status = degraded
		}
	}
	return status
}

// check runs one check. One that does not answer by its deadline is not waited for.
func (h *Host) check(ctx context.Context, name string, ask func(ctx context.Context) error) check {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.ReadyTimeout)
	defer cancel()
	begin := time.Now()
	answer := make(chan error, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				answer <- fmt.Errorf("the check panicked: %v", p)
			}
		}()
		answer <- ask(ctx)
	}()
	var err error
	select {
	case err = <-answer:
	case <-ctx.Done():
		err = fmt.Errorf("no answer within %v", h.cfg.ReadyTimeout)
	}
	c := check{Name: name, Status: ready, Millis: float64(time.Since(begin).Microseconds()) / 1000}
	if err != nil {
		c.Status, c.Error = notReady, err.Error()
		if lack := (*degradedError)(nil); errors.As(err, &lack) {
			c.Status = degraded
		}
	}
	return c
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client may be gone
}
