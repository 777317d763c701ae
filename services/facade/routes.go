package facade

import (
	"crypto/subtle"
	"net/http"
)

// headerToken is where tokens are shown, by apps to a facade and by it to its app.
const headerToken = "Dapr-Api-Token" //nolint:gosec // the name of a header

// routes are the paths of the API.
func (s *Service) routes() http.Handler {
	mux := http.NewServeMux()
	for pattern, serve := range map[string]func(http.ResponseWriter, *http.Request) error{
		"GET /v1.0/state/{store}/{key}":                      s.getState,
		"DELETE /v1.0/state/{store}/{key}":                   s.deleteState,
		"POST /v1.0/state/{store}":                           s.saveState,
		"PUT /v1.0/state/{store}":                            s.saveState,
		"POST /v1.0/state/{store}/bulk":                      s.bulkGetState,
		"PUT /v1.0/state/{store}/bulk":                       s.bulkGetState,
		"POST /v1.0/state/{store}/transaction":               s.transactState,
		"PUT /v1.0/state/{store}/transaction":                s.transactState,
		"POST /v1.0-alpha1/state/{store}/query":              s.queryState,
		"PUT /v1.0-alpha1/state/{store}/query":               s.queryState,
		"POST /v1.0/publish/{pubsub}/{topic...}":             s.publish,
		"PUT /v1.0/publish/{pubsub}/{topic...}":              s.publish,
		"POST /v1.0-alpha1/publish/bulk/{pubsub}/{topic...}": s.bulkPublish,
		"PUT /v1.0-alpha1/publish/bulk/{pubsub}/{topic...}":  s.bulkPublish,
		"POST /v1.0/publish/bulk/{pubsub}/{topic...}":        s.bulkPublish,
		"PUT /v1.0/publish/bulk/{pubsub}/{topic...}":         s.bulkPublish,
		"POST /v1.0-alpha1/lock/{store}":                     s.lock,
		"POST /v1.0-alpha1/unlock/{store}":                   s.unlock,
		"GET /v1.0/secrets/{store}/bulk":                     s.bulkSecrets,
		"GET /v1.0/secrets/{store}/{key}":                    s.getSecret,
		"GET /v1.0/metadata":                                 s.getMetadata,
		"PUT /v1.0/metadata/{key}":                           s.putMetadata,
		"POST /v1.0/shutdown":                                s.shutdown,
	} {
		mux.Handle(pattern, s.guarded(s.handler(serve)))
	}
	mux.Handle("/v1.0/invoke/", s.guarded(s.invoker()))
	mux.Handle("/", s.guarded(s.handler(s.other)))
	for _, probe := range []string{"GET /v1.0/healthz", "GET /v1.0/healthz/outbound"} { // nothing else is served without the token
		mux.Handle(probe, s.handler(healthy))
	}
	return mux
}

func healthy(w http.ResponseWriter, _ *http.Request) error {
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// shutdown is POST /v1.0/shutdown.
func (s *Service) shutdown(w http.ResponseWriter, _ *http.Request) error {
	if s.cfg.Shutdown == nil {
		return refuse(http.StatusForbidden, "ERR_SHUTDOWN", "this node is not ended by an app")
	}
	w.WriteHeader(http.StatusNoContent)
	s.cfg.Shutdown()
	return nil
}

// guarded asks for the token, where there is one.
func (s *Service) guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.cfg.Token != "" {
			if subtle.ConstantTimeCompare([]byte(r.Header.Get(headerToken)), []byte(s.cfg.Token)) != 1 {
				http.Error(w, "invalid api token", http.StatusUnauthorized)
				return
			}
			r.Header.Del(headerToken) // it is for this facade alone
		}
		next.ServeHTTP(w, r)
	})
}
