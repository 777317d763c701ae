package workflows

import (
	"net/http"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/sagas"
)

// An Account is the data of the sagas of an account. Nothing in it is personal: what a saga has entered is in its log for good.
type Account struct {
	AccountID  string   `json:"accountId"`
	SessionIDs []string `json:"sessionIds,omitempty"` // that were ended
}

// A created is as much of account.created as the saga may keep.
type created struct {
	AccountID          string `json:"accountId"`
	ExpectsCredentials bool   `json:"expectsCredentials,omitempty"`
}

// A named is as much of any event of an account as a saga may keep.
type named struct {
	AccountID string `json:"accountId"`
}

// patient tries what fails for an hour and a half, and then parks.
func patient() sagas.Retry {
	return sagas.Retry{Attempts: 100, Pause: time.Second, Timeout: 20 * time.Second}
}

// Registration is the saga of a new account, whose key is the id of the account. The account is there, with its address and its roles, by one
// append; its password is kept for an hour. The saga has it kept for good. Where auth says that it is gone, as no one asked for it in that hour, the account is deleted, so
// that its address is nobody's; any other refusal parks. An account that was made without a password is whole at once.
func Registration() sagas.Definition[Account] {
	return sagas.Definition[Account]{
		Name: "account-registration", Retry: patient(), Policies: sagas.Policies{Unknown: sagas.Ignore},
		Start: []sagas.On[Account]{sagas.Choose(
			sagas.Correlated(events.TopicAccountCreated, func(e *created) string { return e.AccountID }).Narrowed(),
			func(a *Account, e *created) (string, error) {
				a.AccountID = e.AccountID
				if e.ExpectsCredentials {
					return "confirming-credentials", nil
				}
				return "registered", nil
			}, "confirming-credentials", "registered")},
		States: []sagas.State[Account]{
			{
				Name: "confirming-credentials",
				Do:   sagas.Call("auth", "auth/accounts/confirm", (*Account).request),
				Undo: sagas.Call("accounts", "accounts/delete", func(a *Account) any {
					return map[string]string{"accountId": a.AccountID, "reason": "its registration was not completed"}
				}),
				On: []sagas.On[Account]{
					sagas.Answered[Account, struct{}]("registered", nil),
					sagas.RefusedIf[Account](neverConfirmed, sagas.Compensating, nil),
				},
			},
			{Name: "registered", End: true, Do: sagas.Publish(events.TopicAccountRegistered, func(a *Account) bus.Event {
				return &events.AccountRegisteredEvent{AccountID: a.AccountID}
			})},
		},
	}
}

// neverConfirmed reports a refusal in which auth itself says that there is no such account, or no password for it. Whatever else is refused on the way
// there, as by a node without the path, costs nobody the account: the instance parks.
func neverConfirmed(r *sagas.Refusal) bool {
	var said struct {
		Member string `json:"member"`
	}
	if json.Unmarshal(r.Body, &said) != nil || said.Member != "accountId" {
		return false
	}
	return r.Status == http.StatusConflict && r.Code == "conflict" || r.Status == http.StatusNotFound && r.Code == "not_found"
}

// usualTime is how long what is personal is kept where an account waits for its time, and the program says none any more.
const usualTime = 30 * 24 * time.Hour

// Deletion is the saga of a deleted account, whose key is the id of the account. It undoes nothing: what cannot be done parks, and is done when a
// person has seen to it. eraseAfter is how long what is personal is kept; 0: until it is erased by hand, which ends the saga too.
// games says that there are game sessions, which the account leaves: their service has to run somewhere.
//
// The states are the same whatever the arguments are, so that instances that began under others go on: one whose time runs is erased then, and one
// that was leaving its games where there are none any more goes on when nobody can be asked.
func Deletion(eraseAfter time.Duration, games bool) sagas.Definition[Account] {
	erasedBy := sagas.When[Account](sagas.Correlated(events.TopicAccountErased, func(e *named) string { return e.AccountID }), "deleted", nil)
	ended := func(a *Account) any {
		return map[string]any{"accountId": a.AccountID, "sessionIds": append([]string{}, a.SessionIDs...)}
	}
	leaving := []sagas.On[Account]{sagas.Answered[Account, struct{}]("clearing-permissions", nil)}
	if !games {
		leaving = append(leaving, sagas.Refused[Account]("clearing-permissions", nil), sagas.Failed[Account]("clearing-permissions", nil))
	}
	after := eraseAfter
	if after <= 0 {
		after = usualTime
	}
	return sagas.Definition[Account]{
		Name: "account-deletion", Retry: patient(), Policies: sagas.Policies{Unknown: sagas.Ignore},
		Start: []sagas.On[Account]{sagas.When(
			sagas.Correlated(events.TopicAccountDeleted, func(e *named) string { return e.AccountID }).Narrowed(), "ending-sessions",
			func(a *Account, e *named) error { a.AccountID = e.AccountID; return nil })},
		States: []sagas.State[Account]{
			{
				Name: "ending-sessions", NoUndo: true,
				Do: sagas.Call("auth", "auth/accounts/end", (*Account).request),
				On: []sagas.On[Account]{sagas.ChooseAnswered(func(a *Account, e *Account) (string, error) {
					a.SessionIDs = e.SessionIDs
					if games {
						return "leaving-games", nil
					}
					return "clearing-permissions", nil
				}, "leaving-games", "clearing-permissions")},
			},
			{
				Name: "leaving-games", NoUndo: true,
				Do: sagas.Call("game-session", "game-session/players/remove", ended),
				On: leaving,
			},
			{
				Name: "clearing-permissions", NoUndo: true,
				Do: sagas.Call("permissions", "permissions/sessions/end", ended),
				On: []sagas.On[Account]{sagas.ChooseAnswered(func(*Account, *struct{}) (string, error) {
					if eraseAfter > 0 {
						return "kept", nil
					}
					return "kept-until-asked", nil
				}, "kept", "kept-until-asked")},
			},
			{Name: "kept-until-asked", On: []sagas.On[Account]{erasedBy}, NoTimeout: true},
			{Name: "kept", On: []sagas.On[Account]{erasedBy, sagas.After[Account](after, "erasing", nil)}},
			{
				Name: "erasing", NoUndo: true,
				Do: sagas.Call("accounts", "accounts/erase", (*Account).request),
				On: []sagas.On[Account]{sagas.Answered[Account, struct{}]("deleted", nil)},
			},
			{Name: "deleted", End: true},
		},
	}
}

// request is what steps of an account are asked with.
func (a *Account) request() any { return named{a.AccountID} }
