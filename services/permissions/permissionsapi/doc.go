// Package permissionsapi is the permissions service as its openapi.yaml describes it: requests, answers, the server's
// stub and a client, all generated.
package permissionsapi

//go:generate oapi-codegen -config oapi-codegen.yaml ../openapi.yaml
