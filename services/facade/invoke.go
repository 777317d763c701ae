package facade

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/bannou-mesh/bannou/pkg/mesh"
)

// invoker passes calls on: to the facade's own app directly, to others through the mesh.
func (s *Service) invoker() http.Handler {
	proxy := mesh.NewProxy(s.cfg.Client, mesh.ProxyConfig{ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
		target, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, mesh.ProxyPattern), "/")
		s.answerError(w, r, invokeRefusal(target, err))
	}})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		target, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.EscapedPath(), mesh.ProxyPattern), "/")
		method, is := strings.CutPrefix(rest, "method/")
		if !is || target == "" {
			s.answerError(w, r, refuse(http.StatusNotFound, "ERR_DIRECT_INVOKE", "failed getting app id either from the URL path or the header dapr-app-id"))
			return
		}
		r.Header.Set("Dapr-Caller-App-Id", s.cfg.AppID)
		r.Header.Set("Dapr-Callee-App-Id", target)
		if target == s.cfg.AppID && s.channel != nil { // or another instance of it, which is the same app
			s.channel.invoke(w, r, method)
			return
		}
		proxy.ServeHTTP(w, r)
	})
}

// invokeRefusal keeps Dapr's statuses: 403 for who may not, 500 for all that came to no answer.
func invokeRefusal(target string, err error) error {
	status, code := mesh.ErrorStatus(err)
	if status != http.StatusForbidden && status != http.StatusBadRequest {
		status = http.StatusInternalServerError
	}
	return refuse(status, "ERR_DIRECT_INVOKE", "failed to invoke, id: %s, err: %s: %s", target, code, err)
}

// other is a path of no call of the API. With the header dapr-app-id, or as
// http://dapr-app-id:APP@host, it is a call of that app's.
func (s *Service) other(w http.ResponseWriter, r *http.Request) error {
	target := r.Header.Get("Dapr-App-Id")
	if user, password, _ := r.BasicAuth(); target == "" && user == "dapr-app-id" {
		target = password
	}
	if target == "" {
		return refuse(http.StatusNotFound, "ERR_DIRECT_INVOKE", "failed getting app id either from the URL path or the header dapr-app-id")
	}
	path := strings.TrimPrefix(r.URL.EscapedPath(), "/")
	to := *r.URL
	to.RawPath = mesh.ProxyPattern + url.PathEscape(target) + "/method/" + path
	unescaped, err := url.PathUnescape(to.RawPath)
	if err != nil {
		return malformed("%s", err)
	}
	to.Path = unescaped
	r.URL = &to
	s.invoker().ServeHTTP(w, r)
	return nil
}
