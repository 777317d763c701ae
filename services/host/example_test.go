package host_test

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/bannou-mesh/bannou/services/host"
)

// greeter is a service with one path and nothing else.
type greeter struct{ host.Base }

func (greeter) Name() string { return "greeter" }

func (greeter) Mount(mux *http.ServeMux) error {
	mux.HandleFunc("GET /greet/{name}", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "hello "+r.PathValue("name"))
	})
	return nil
}

func Example() {
	h, err := host.New(host.Config{Listen: "127.0.0.1:0"})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := h.Add(greeter{}); err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	<-h.Started()

	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for _, path := range []string{"/greet/ada", "/readyz"} {
		response, err := client.Get("http://" + h.Addr().String() + path)
		if err != nil {
			fmt.Println(err)
			return
		}
		body, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if err != nil || path == "/readyz" {
			fmt.Println(response.StatusCode)
			continue
		}
		fmt.Println(response.StatusCode, string(body))
	}
	stop()
	fmt.Println(<-done)
	// Output:
	// 200 hello ada
	// 200
	// <nil>
}
