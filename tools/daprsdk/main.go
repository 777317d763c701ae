// Command daprsdk is a program with Dapr's SDK for Go: what it does is Dapr's own way of doing it, and what it sees is printed, a line for each thing.
// The tests run it beside a daprd and beside a node of Bannou. It is a module of its own, for what the SDK requires is nothing that Bannou needs.
//
//	daprsdk http|grpc APP_PORT DAPR_GRPC_PORT dapr|facade
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"github.com/dapr/go-sdk/client"
	"github.com/dapr/go-sdk/service/common"
	servicegrpc "github.com/dapr/go-sdk/service/grpc"
	servicehttp "github.com/dapr/go-sdk/service/http"
)

func main() {
	log.SetOutput(io.Discard) // of the SDK's service
	client.SetLogger(log.Default())
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: daprsdk http|grpc APP_PORT DAPR_GRPC_PORT dapr|facade")
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := story(ctx, os.Args[1], "127.0.0.1:"+os.Args[2], os.Args[3], os.Args[4]); err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}

// An app is the program as a service, and what has come to it.
type app struct {
	client   client.Client
	protocol string
	events   chan *common.TopicEvent
	streamed chan *common.TopicEvent
}

func story(ctx context.Context, protocol, address, daprPort, side string) error {
	a := &app{protocol: protocol, events: make(chan *common.TopicEvent, 100), streamed: make(chan *common.TopicEvent, 100)}
	failed := make(chan error, 1)
	if err := a.serve(address, failed); err != nil {
		return err
	}
	var err error
	if a.client, err = connect(ctx, daprPort); err != nil {
		return err
	}
	defer a.client.Close()
	parts := []func(context.Context) error{a.subscribed, a.invoke, a.state, a.publish, a.stream, a.errors, a.metadata}
	if side == "facade" { // the build of daprd with stable components has neither a store that is queried nor locks
		parts = append(parts, a.query, a.lock)
	}
	for _, part := range parts {
		if err := part(ctx); err != nil {
			return err
		}
		select {
		case err := <-failed:
			return err
		default:
		}
	}
	return nil
}

// connect waits for the sidecar, which waits for this app.
func connect(ctx context.Context, port string) (client.Client, error) {
	for {
		c, err := client.NewClientWithPort(port)
		if err == nil || ctx.Err() != nil {
			return c, err
		}
	}
}

// serve starts the app.
func (a *app) serve(address string, failed chan<- error) error {
	var service common.Service
	if a.protocol == "grpc" {
		var err error
		if service, err = servicegrpc.NewService(address); err != nil {
			return err
		}
	} else {
		service = servicehttp.NewService(address)
	}
	if err := service.AddServiceInvocationHandler("/hello", hello); err != nil {
		return err
	}
	if err := service.AddServiceInvocationHandler("/broken", func(context.Context, *common.InvocationEvent) (*common.Content, error) {
		return nil, fmt.Errorf("it is broken")
	}); err != nil {
		return err
	}
	subscription := &common.Subscription{PubsubName: "local", Topic: "orders", Route: "/on/orders"}
	if err := service.AddTopicEventHandler(subscription, func(_ context.Context, e *common.TopicEvent) (bool, error) {
		a.events <- e
		return false, nil
	}); err != nil {
		return err
	}
	go func() { failed <- service.Start() }()
	return nil
}

// hello is what others call.
func hello(_ context.Context, in *common.InvocationEvent) (*common.Content, error) {
	heard, err := json.Marshal(map[string]string{"heard": string(in.Data), "verb": in.Verb, "query": in.QueryString, "type": in.ContentType})
	return &common.Content{Data: heard, ContentType: "application/json"}, err
}

// say prints a line.
func say(what string, values ...any) {
	line, err := json.Marshal(values)
	if err != nil {
		line = []byte(err.Error())
	}
	fmt.Println(what, string(line))
}

// subscribed waits until the app is: what is published before is for nobody.
func (a *app) subscribed(ctx context.Context) error {
	for {
		m, err := a.client.GetMetadata(ctx)
		if ctx.Err() != nil {
			return fmt.Errorf("wait for the subscription: %w", ctx.Err())
		}
		if err == nil && len(m.Subscriptions) > 0 {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (a *app) invoke(ctx context.Context) error {
	answer, err := a.client.InvokeMethodWithContent(ctx, "app", "hello?a=1", "put", &client.DataContent{Data: []byte(`{"name":"Ada"}`), ContentType: "application/json"})
	say("invoke", string(answer), code(err))
	answer, err = a.client.InvokeMethod(ctx, "app", "hello", "get")
	say("invoke without data", string(answer), code(err))
	_, err = a.client.InvokeMethod(ctx, "app", "broken", "post")
	say("invoke what fails", code(err))
	_, err = a.client.InvokeMethod(ctx, "nobody", "hello", "post")
	say("invoke nobody", code(err))
	return nil
}
