package facade

import (
	"crypto/subtle"
	"net"
	"net/http"
	"net/url"
	"strings"
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
	// Nothing else is served without the token.
	mux.HandleFunc("GET /v1.0/healthz", s.healthy)
	mux.HandleFunc("GET /v1.0/healthz/outbound", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	return mux
}

// healthy is GET /v1.0/healthz, which is for others than the app: it is not there yet, or not subscribed, as long as this is refused. Why is in the log
// once, and not for each who asks.
func (s *Service) healthy(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	pending := s.pending
	s.mu.Unlock()
	if pending != nil {
		refuse(http.StatusInternalServerError, "ERR_HEALTH_NOT_READY", "dapr is not ready: %s", pending).answer(w)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// shutdown is POST /v1.0/shutdown.
func (s *Service) shutdown(w http.ResponseWriter, _ *http.Request) error {
	if err := s.shut(); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Service) shut() error {
	if s.cfg.Shutdown == nil {
		return refuse(http.StatusForbidden, "ERR_SHUTDOWN", "this node is not ended by an app")
	}
	s.cfg.Shutdown()
	return nil
}

// foreign reports whether a request comes from a page of another site in a browser on this machine: such a page may reach a port on loopback, by its
// address or by a name of its own that it lets point there. Who is called by loopback is called so, and Origin is of this machine or absent.
func (s *Service) foreign(r *http.Request) bool {
	if site := r.Header.Get("Sec-Fetch-Site"); site == "cross-site" || site == "same-site" { // a link or a picture has no Origin
		return true
	}
	if origin := r.Header.Get("Origin"); origin != "" {
		from, err := url.Parse(origin)
		if err != nil || from.Host != r.Host && !ofThisMachine(from.Host) {
			return true
		}
	}
	address, is := s.cfg.Listener.Addr().(*net.TCPAddr)
	return is && address.IP.IsLoopback() && !ofThisMachine(r.Host)
}

// ofThisMachine reports whether a host, with or without a port, is loopback.
func ofThisMachine(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.Trim(host, "[]")
	return strings.EqualFold(host, "localhost") || net.ParseIP(host).IsLoopback()
}

// guarded asks for the token, where there is one; where there is none it refuses pages of other sites.
func (s *Service) guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.cfg.Token != "" {
			if subtle.ConstantTimeCompare([]byte(r.Header.Get(headerToken)), []byte(s.cfg.Token)) != 1 {
				http.Error(w, "invalid api token", http.StatusUnauthorized)
				return
			}
			r.Header.Del(headerToken) // it is for this facade alone
		}
		if s.cfg.Token == "" && s.foreign(r) {
			s.answerError(w, r, refuse(http.StatusForbidden, "ERR_FORBIDDEN", "a page of another site may not use this API: call it as localhost and without its Origin, or set a token"))
			return
		}
		next.ServeHTTP(w, r)
	})
}
