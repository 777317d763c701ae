package main

import (
	"context"
	"errors"

	"github.com/dapr/go-sdk/client"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"
)

// code is what an SDK tells of an error: its code, and the reason in its details.
func code(err error) string {
	if err == nil {
		return "OK"
	}
	for wrapped := err; wrapped != nil; wrapped = errors.Unwrap(wrapped) {
		st, is := wrapped.(interface{ GRPCStatus() *status.Status })
		if !is {
			continue
		}
		said := st.GRPCStatus().Code().String()
		for _, detail := range st.GRPCStatus().Details() {
			if info, is := detail.(*errdetails.ErrorInfo); is {
				said += " " + info.GetReason()
			}
		}
		return said
	}
	return err.Error()
}

func (a *app) state(ctx context.Context) error {
	c := a.client
	say("save", code(c.SaveState(ctx, "redis", "a", []byte(`{"n":9007199254740993}`), nil)), code(c.SaveState(ctx, "redis", "b", []byte("text, no JSON"), nil)),
		code(c.SaveState(ctx, "memory", "a", []byte{0, 255}, nil)))
	first, err := c.GetState(ctx, "redis", "a", nil)
	if err != nil {
		return err
	}
	second, err := c.GetState(ctx, "redis", "b", nil)
	if err != nil {
		return err
	}
	third, err := c.GetState(ctx, "memory", "a", nil)
	if err != nil {
		return err
	}
	none, err := c.GetState(ctx, "redis", "none", nil)
	if err != nil {
		return err
	}
	say("get", string(first.Value), string(second.Value), third.Value, len(none.Value), none.Etag)
	several, err := c.GetBulkState(ctx, "redis", []string{"a", "b", "none"}, nil, 2)
	if err != nil {
		return err
	}
	found := map[string]string{}
	for _, item := range several {
		found[item.Key] = string(item.Value)
	}
	say("bulk", found)
	onlyFirst := client.WithConcurrency(client.StateConcurrencyFirstWrite)
	say("etags", code(c.SaveStateWithETag(ctx, "redis", "a", []byte(`{"n":2}`), first.Etag, nil, onlyFirst)),
		code(c.SaveStateWithETag(ctx, "redis", "a", []byte(`{"n":3}`), first.Etag, nil, onlyFirst)),
		code(c.DeleteStateWithETag(ctx, "redis", "a", &client.ETag{Value: first.Etag}, nil, &client.StateOptions{Concurrency: client.StateConcurrencyFirstWrite})))
	say("transaction", code(c.ExecuteStateTransaction(ctx, "redis", nil, []*client.StateOperation{
		{Type: client.StateOperationTypeUpsert, Item: &client.SetStateItem{Key: "c", Value: []byte(`{"n":4}`)}},
		{Type: client.StateOperationTypeDelete, Item: &client.SetStateItem{Key: "b"}},
	})))
	say("delete several", code(c.SaveBulkState(ctx, "redis", &client.SetStateItem{Key: "x", Value: []byte("1")}, &client.SetStateItem{Key: "y", Value: []byte("2")})),
		code(c.DeleteBulkState(ctx, "redis", []string{"x", "y"}, nil)))
	several, err = c.GetBulkState(ctx, "redis", []string{"a", "b", "c", "x", "y"}, nil, 2)
	if err != nil {
		return err
	}
	found = map[string]string{}
	for _, item := range several {
		found[item.Key] = string(item.Value)
	}
	say("after them", found)
	say("delete", code(c.DeleteState(ctx, "redis", "a", nil)))
	return nil
}

func (a *app) errors(ctx context.Context) error {
	say("a store that there is not", code(a.client.SaveState(ctx, "nowhere", "a", []byte("1"), nil)))
	say("a key with the separator", code(a.client.SaveState(ctx, "redis", "a||b", []byte("1"), nil)))
	say("a broker that there is not", code(a.client.PublishEvent(ctx, "nowhere", "orders", "x")))
	say("a time to live that is no number", code(a.client.SaveState(ctx, "redis", "a", []byte("1"), map[string]string{"ttlInSeconds": "soon"})))
	_, err := a.client.QueryStateAlpha1(ctx, "redis", "{}", nil)
	say("a query of a store that cannot", code(err))
	return nil
}

func (a *app) metadata(ctx context.Context) error {
	say("set metadata", code(a.client.SetMetadata(ctx, "word", "said")))
	m, err := a.client.GetMetadata(ctx)
	if err != nil {
		return err
	}
	say("metadata", m.ID, m.ExtendedMetadata["word"])
	secret, err := a.client.GetSecret(ctx, "files", "plain", nil)
	say("secret", secret, code(err))
	return nil
}

func (a *app) query(ctx context.Context) error {
	if err := a.client.SaveBulkState(ctx, "accounts", &client.SetStateItem{Key: "p1", Value: []byte(`{"city":"Ulm"}`)},
		&client.SetStateItem{Key: "p2", Value: []byte(`{"city":"Bonn"}`)}, &client.SetStateItem{Key: "p3", Value: []byte{0, 1, 255}}); err != nil {
		return err
	}
	found, err := a.client.QueryStateAlpha1(ctx, "accounts", `{"filter":{"EQ":{"city":"Ulm"}},"sort":[{"key":"city","order":"ASC"}],"page":{"limit":10}}`, nil)
	if err != nil {
		return err
	}
	for _, item := range found.Results {
		say("query", item.Key, string(item.Value))
	}
	bytes, err := a.client.GetState(ctx, "accounts", "p3", nil)
	if err != nil {
		return err
	}
	say("bytes in a store of JSON", bytes.Value)
	return nil
}

func (a *app) lock(ctx context.Context) error {
	for _, owner := range []string{"me", "you"} {
		taken, err := a.client.TryLockAlpha1(ctx, "redis", &client.LockRequest{ResourceID: "door", LockOwner: owner, ExpiryInSeconds: 60})
		if err != nil {
			return err
		}
		say("lock", owner, taken.Success)
	}
	for _, owner := range []string{"you", "me", "me"} {
		freed, err := a.client.UnlockAlpha1(ctx, "redis", &client.UnlockRequest{ResourceID: "door", LockOwner: owner})
		if err != nil {
			return err
		}
		say("unlock", owner, freed.Status)
	}
	return nil
}
