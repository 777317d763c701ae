package accounts

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/bannou-mesh/bannou/services/accounts/accountsapi"
	"github.com/bannou-mesh/bannou/services/problem"
)

const (
	maxNameBytes   = 128
	maxReasonBytes = 255
	maxRoles       = 32
	maxRoleBytes   = 64
)

// DefaultRole is what accounts have that were registered without roles.
const DefaultRole = "user"

func checkText(member, text string, most int) error {
	switch {
	case len(text) > most:
		return problem.Invalid(member, "has %d bytes, at most %d are allowed", len(text), most)
	case strings.ContainsFunc(text, unicode.IsControl):
		return problem.Invalid(member, "contains a control character")
	default:
		return nil
	}
}

func checkRegistration(r *accountsapi.RegisterAccountRequest) error {
	if err := problem.RequireUUID("accountId", r.AccountID); err != nil {
		return err
	}
	if r.Email != "" {
		if err := checkEmail("email", r.Email); err != nil {
			return err
		}
	}
	return checkText("displayName", r.DisplayName, maxNameBytes)
}

// orderedRoles checks roles and puts them into order, each once.
func orderedRoles(roles []string) ([]string, error) {
	if len(roles) > maxRoles {
		return nil, problem.Invalid("roles", "has %d entries, at most %d are allowed", len(roles), maxRoles)
	}
	for i, role := range roles {
		if len(role) == 0 || len(role) > maxRoleBytes || strings.Trim(role, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" {
			return nil, problem.Invalid(fmt.Sprintf("roles[%d]", i), "is no role: one has 1 to %d lower-case letters, digits, dashes, dots and underscores", maxRoleBytes)
		}
	}
	ordered := append([]string{}, roles...)
	slices.Sort(ordered)
	return slices.Compact(ordered), nil
}
