package registrar_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
	"github.com/bannou-mesh/bannou/services/host"
	"github.com/bannou-mesh/bannou/services/registrar"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const document = `
info: {version: 1.2.3}
paths:
  /game/join:
    parameters: []
    post:
      x-permissions: [{role: user, states: {lobby: open}}, {role: admin}]
    get: {}
  /game/end:
    post:
      x-permissions: []
`

type service struct {
	host.Base
	document string
}

func (service) Name() string      { return "game" }
func (s service) OpenAPI() []byte { return []byte(s.document) }

func TestServicesAreRegisteredAsTheirDocumentsSay(t *testing.T) {
	b, err := bus.New(memorybus.New(memorybus.Config{}), bus.Config{})
	require.NoError(t, err)
	heard := make(chan *events.PermissionsServiceRegisteredEvent, 10)
	require.NoError(t, bus.Handle(b, events.TopicPermissionsServiceRegistered, "test", func(_ context.Context, e *events.PermissionsServiceRegisteredEvent) error {
		heard <- e
		return nil
	}, bus.SubscriptionOptions{}))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	<-b.Running()
	defer func() { stop(); require.NoError(t, <-done) }()

	r, err := registrar.New(registrar.Config{Bus: b, AppID: "games"})
	require.NoError(t, err)
	require.NoError(t, r.Add(service{document: "paths: {/x: {post: {}}}"})) // says nothing
	require.NoError(t, r.Add(service{}))
	require.NoError(t, r.Add(service{document: document}))
	require.Error(t, r.Add(service{document: "paths: {/x: {post: {x-permissions: user}}}"}))
	require.NoError(t, r.Start(t.Context()))
	e := <-heard
	require.NoError(t, r.Stop(t.Context()))
	require.Equal(t, []string{"game", "games", "1.2.3"}, []string{e.ServiceName, e.AppID, e.Version})
	require.Equal(t, []events.PermissionsEndpoint{
		{Method: "POST", Path: "/game/end", Permissions: []events.PermissionsRequirement{}},
		{Method: "GET", Path: "/game/join", Permissions: []events.PermissionsRequirement{}},
		{Method: "POST", Path: "/game/join", Permissions: []events.PermissionsRequirement{{Role: "user", States: map[string]string{"lobby": "open"}}, {Role: "admin"}}},
	}, e.Endpoints)
	require.Empty(t, heard)
}
