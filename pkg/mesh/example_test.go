package mesh_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/http"

	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/pkg/mesh/meshtest"
)

type greetRequest struct {
	Name string `json:"name"`
}

type greetResponse struct {
	Text string `json:"text"`
}

func greet(w http.ResponseWriter, r *http.Request) {
	var req greetRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	_ = json.NewEncoder(w).Encode(greetResponse{Text: "hello, " + req.Name})
}

// A service calls another by name. Here both are in one process, so there is no socket; on another node nothing in the
// call would change.
func Example() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()

	// A node has these from its state layer and its bus.
	registry, err := mesh.NewRegistry(meshtest.NewTable(), new(meshtest.Feed), mesh.RegistryConfig{})
	if err != nil {
		log.Fatal(err)
	}
	directory := mesh.NewDirectory(registry, new(meshtest.Feed), mesh.DirectoryConfig{})
	ended := make(chan error, 1)
	go func() { ended <- directory.Run(ctx) }()

	mux := http.NewServeMux()
	mux.HandleFunc("POST /greeter/greet", greet)
	client, err := mesh.NewClient(mesh.ClientConfig{Directory: directory, AppID: "bannou", Local: mux, LocalServices: []string{"greeter"}})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	answer, err := mesh.Invoke[greetRequest, greetResponse](ctx, client, "greeter", "greeter/greet", greetRequest{Name: "world"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(answer.Text)

	stop()
	if err := <-ended; err != nil {
		log.Fatal(err)
	}
	// Output: hello, world
}

// An instance enters itself, and others find it; a mapping moves a service to another app-id.
func ExampleRegistry() {
	ctx := context.Background()
	registry, err := mesh.NewRegistry(meshtest.NewTable(), new(meshtest.Feed), mesh.RegistryConfig{})
	if err != nil {
		log.Fatal(err)
	}
	err = registry.Register(ctx, mesh.Endpoint{
		AppID: "bannou-world", InstanceID: "world-1", Host: "10.0.0.7", Port: 3500, Services: []string{"realm", "location"}})
	if err != nil {
		log.Fatal(err)
	}
	mappings, err := registry.SetMappings(ctx, map[string]string{"realm": "bannou-world"}, "world-1")
	if err != nil {
		log.Fatal(err)
	}
	endpoints, err := registry.Endpoints(ctx, mappings.AppID("realm"), false)
	if err != nil {
		log.Fatal(err)
	}
	for _, e := range endpoints {
		fmt.Println(e.InstanceID, e.Address(), e.Status)
	}
	fmt.Println(mappings.AppID("accounts"))
	// Output:
	// world-1 10.0.0.7:3500 healthy
	// bannou
}
