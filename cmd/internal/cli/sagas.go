package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/bannou-mesh/bannou/services/sagas/sagasapi"
)

type sagasCommand struct {
	List       sagasListCommand       `cmd:"" help:"List the instances of a saga, or without one the sagas of the node."`
	Show       sagasShowCommand       `cmd:"" help:"Show an instance with what it was given, or draw it."`
	Retry      sagasRetryCommand      `cmd:"" help:"Have a parked instance try again what it stopped at."`
	Compensate sagasCompensateCommand `cmd:"" help:"Have the steps of a running or parked instance undone."`
	Cancel     sagasCancelCommand     `cmd:"" help:"End an instance as it is; nothing is undone."`
}

type sagasListCommand struct {
	nodeFlag
	outputFlag
	Saga   string   `arg:"" optional:"" help:"Name of the saga."`
	Status []string `enum:"running,compensating,parked,completed,compensated,cancelled" help:"Only instances that are running, compensating, parked, completed, compensated or cancelled."`
	State  string   `help:"Only instances in this state."`
	Limit  int      `short:"n" default:"100" help:"How many, up to 1000."`
	Cursor string   `help:"Go on after the page before, with the cursor that it ended with."`
}

func (c *sagasListCommand) Run(ctx context.Context, std *stdio) error {
	client, err := c.sagas()
	if err != nil {
		return err
	}
	request := sagasapi.ListSagasRequest{Saga: c.Saga, State: c.State, Limit: &c.Limit, Cursor: c.Cursor}
	for _, s := range c.Status {
		request.Status = append(request.Status, sagasapi.SagaStatus(s))
	}
	answer, err := decode[sagasapi.ListSagasResponse](read(client.ListSagas(ctx, request)))
	if err != nil {
		return err
	}
	now := time.Now()
	return c.print(std, answer, func(t *table) {
		if c.Saga == "" {
			t.row("SAGA", "VERSION")
			for _, s := range answer.Sagas {
				t.row(s.Saga, s.Version)
			}
			return
		}
		t.row("KEY", "STATUS", "STATE", "VERSION", "STARTED", "CHANGED", "REASON")
		for _, i := range answer.Instances {
			t.row(i.Key, i.Status, i.State, i.Version, ago(i.StartedAt, now), ago(i.ChangedAt, now), shortened(i.Reason))
		}
		if answer.Cursor != "" {
			t.line("more: --cursor " + printable(answer.Cursor))
		}
	})
}

// sagaFlags name an instance.
type sagaFlags struct {
	nodeFlag
	outputFlag
	Saga string `arg:"" help:"Name of the saga."`
	Key  string `arg:"" help:"Key of the instance."`
}

type sagasShowCommand struct {
	sagaFlags
	Draw string `enum:",svg,mermaid" default:"" help:"Print a diagram with the present state marked instead: svg or mermaid."`
}

func (c *sagasShowCommand) Run(ctx context.Context, std *stdio) error {
	client, err := c.sagas()
	if err != nil {
		return err
	}
	if c.Draw != "" {
		drawn, err := decode[sagasapi.DrawSagaResponse](read(client.DrawSaga(ctx, sagasapi.DrawSagaRequest{
			Saga: c.Saga, Key: c.Key, Format: sagasapi.DrawSagaRequestFormat(c.Draw),
		})))
		if err != nil {
			return err
		}
		_, err = io.WriteString(std.out, drawn.Diagram)
		return err
	}
	body, err := read(client.GetSaga(ctx, sagasapi.GetSagaRequest{Saga: c.Saga, Key: c.Key, History: true}))
	answer, err := decode[sagasapi.GetSagaResponse](body, err)
	if err != nil {
		return err
	}
	return c.print(std, answer, func(t *table) {
		i := answer.Instance
		for _, line := range [][2]string{
			{"saga", fmt.Sprintf("%s, version %d", i.Saga, i.Version)}, {"key", i.Key}, {"status", string(i.Status)}, {"state", i.State}, {"reason", i.Reason},
			{"owed", strings.Join(i.Owed, ", ")},
		} {
			if line[1] != "" {
				t.row(line[0], line[1])
			}
		}
		t.line("")
		t.row("AT", "GIVEN", "STATE", "STATUS", "PUBLISHED")
		for _, h := range answer.History {
			t.row(h.At.Format(time.RFC3339), h.Message, h.State, h.Status, strings.Join(h.Published, ", "))
		}
	})
}

// sagaRequest say what is asked of an instance.
type sagaRequest struct {
	sagaFlags
	Note  string `help:"Why, for those who look at it later."`
	Actor string `help:"Who asks."`
}

// request asks, and prints what the instance is then.
func (c *sagaRequest) request(std *stdio, ask func(client *sagasapi.Client, r sagasapi.SettleSagaRequest) (*http.Response, error)) error {
	client, err := c.sagas()
	if err != nil {
		return err
	}
	answer, err := decode[sagasapi.SettleSagaResponse](read(ask(client, sagasapi.SettleSagaRequest{Saga: c.Saga, Key: c.Key, Note: c.Note, Actor: c.Actor})))
	if err != nil {
		return err
	}
	return c.print(std, answer, func(t *table) {
		t.line(printable(fmt.Sprintf("%s %s is %s", c.Saga, c.Key, answer.Instance.Status)))
	})
}

type sagasRetryCommand struct{ sagaRequest }

func (c *sagasRetryCommand) Run(ctx context.Context, std *stdio) error {
	return c.request(std, func(client *sagasapi.Client, r sagasapi.SettleSagaRequest) (*http.Response, error) {
		return client.RetrySaga(ctx, r)
	})
}

type sagasCompensateCommand struct{ sagaRequest }

func (c *sagasCompensateCommand) Run(ctx context.Context, std *stdio) error {
	return c.request(std, func(client *sagasapi.Client, r sagasapi.SettleSagaRequest) (*http.Response, error) {
		return client.CompensateSaga(ctx, r)
	})
}

type sagasCancelCommand struct {
	sagaRequest
	Yes bool `short:"y" help:"Do not ask before it is done."`
}

// Run asks first: what was done of the instance stays as it is, and nobody undoes it.
func (c *sagasCancelCommand) Run(ctx context.Context, std *stdio) error {
	if !c.Yes {
		if err := confirm(std, fmt.Sprintf("end %s %s as it is, and undo nothing?", printable(c.Saga), printable(c.Key))); err != nil {
			return err
		}
	}
	return c.request(std, func(client *sagasapi.Client, r sagasapi.SettleSagaRequest) (*http.Response, error) {
		return client.CancelSaga(ctx, r)
	})
}
