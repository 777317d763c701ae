package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// echoLimit bounds what echo reads of a request: it is for trying things out.
const echoLimit = 1 << 20

type echoCommand struct {
	Listen string `default:"127.0.0.1:4000" help:"Address to serve on."`
	Status int    `default:"200" help:"Status to answer with, from 200 to 599: try 500 to see retries, 410 to unsubscribe."`
	Count  int    `help:"End after this many requests; 0 means never."`
}

// Run answers every request with what it got, and prints a line for each.
func (c *echoCommand) Run(ctx context.Context, std *stdio) error {
	if c.Status < 200 || c.Status > 599 {
		return usageError{fmt.Errorf("--status %d: choose from 200 to 599", c.Status)}
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return usageError{fmt.Errorf("cannot listen on %s: %w", c.Listen, err)}
	}
	ctx, done := context.WithCancel(ctx)
	defer done()

	var mu sync.Mutex
	seen := 0
	server := &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, echoLimit))
			if err != nil {
				http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
				return
			}
			answer(w, r, c.Status, body)
			mu.Lock()
			defer mu.Unlock()
			_, _ = fmt.Fprintln(std.out, printable(requestLine(r, body)))
			if seen++; seen == c.Count {
				done()
			}
		}),
	}
	_, _ = fmt.Fprintf(std.err, "echo on http://%s\n", listener.Addr())
	stopped := make(chan error, 1)
	go func() { stopped <- server.Serve(listener) }()
	select {
	case err := <-stopped:
		return err
	case <-ctx.Done():
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		err := server.Shutdown(grace)
		if served := <-stopped; !errors.Is(served, http.ErrServerClosed) {
			err = errors.Join(err, served)
		}
		return err
	}
}

func answer(w http.ResponseWriter, r *http.Request, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if status == http.StatusNoContent || status == http.StatusNotModified {
		return
	}
	reply := map[string]any{"method": r.Method, "path": r.URL.Path}
	if json.Valid(body) {
		reply["body"] = json.RawMessage(body)
	} else {
		reply["body"] = string(body)
	}
	// The caller may be gone; there is nobody left to tell.
	_ = json.NewEncoder(w).Encode(reply)
}

func requestLine(r *http.Request, body []byte) string {
	parts := []string{r.Method, r.URL.Path}
	if topic := r.Header.Get("Bannou-Topic"); topic != "" {
		parts = append(parts, "topic="+topic, "attempt="+r.Header.Get("Bannou-Delivery-Attempt"))
	}
	return strings.Join(append(parts, compact(body)), " ")
}
