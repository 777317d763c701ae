package auth

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// counts are the metrics of the service.
type counts struct {
	logins, hashes, revoked metric.Int64Counter
}

func newCounts(provider metric.MeterProvider) (counts, error) {
	meter := provider.Meter("github.com/bannou-mesh/bannou/services/auth")
	logins, loginsErr := meter.Int64Counter("bannou.auth.logins", metric.WithDescription("Logins, by outcome: ok, refused, throttled, failed."))
	hashes, hashesErr := meter.Int64Counter("bannou.auth.hashes", metric.WithDescription("Passwords that were hashed, to keep or to compare."))
	revoked, revokedErr := meter.Int64Counter("bannou.auth.sessions.revoked",
		metric.WithDescription("Sessions that ended because a refresh token was used twice."))
	return counts{logins, hashes, revoked}, errors.Join(loginsErr, hashesErr, revokedErr)
}

func (c counts) login(ctx context.Context, outcome string) {
	c.logins.Add(ctx, 1, metric.WithAttributes(attribute.String("outcome", outcome)))
}
