package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"godstack/internal/app"
)

// Traces are on where an address says where to, or the exporter is named; and off where that is none, whatever else is said.
func TestTracing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		environ []string
		want    *app.Tracing
	}{
		{"nothing", nil, nil},
		{"a name alone", []string{"OTEL_SERVICE_NAME=shop", "OTEL_TRACES_SAMPLER=always_on"}, nil},
		{"the exporter", []string{"OTEL_TRACES_EXPORTER=otlp"}, &app.Tracing{}},
		{"an address", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318/"}, &app.Tracing{Endpoint: "http://collector:4318/v1/traces"}},
		{"an address with a path", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://collector/otlp"}, &app.Tracing{Endpoint: "http://collector/otlp/v1/traces"}},
		{
			"a whole address", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://collector", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=https://traces/in"},
			&app.Tracing{Endpoint: "https://traces/in"},
		},
		{"none", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://collector", "OTEL_TRACES_EXPORTER=none"}, nil},
		{
			"everything", []string{
				"OTEL_TRACES_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf", "OTEL_EXPORTER_OTLP_HEADERS=api-key=a%20b, team=x,",
				"OTEL_RESOURCE_ATTRIBUTES=service.name=attribute,host.name=h", "OTEL_TRACES_SAMPLER=parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG=0.25",
			},
			&app.Tracing{
				Headers: map[string]string{"api-key": "a b", "team": "x"}, Service: "attribute", Attributes: map[string]string{"host.name": "h"},
				Sampler: "parentbased_traceidratio", Ratio: new(0.25),
			},
		},
		{
			"the name goes first", []string{"OTEL_TRACES_EXPORTER=otlp", "OTEL_SERVICE_NAME=shop", "OTEL_RESOURCE_ATTRIBUTES=service.name=x"},
			&app.Tracing{Service: "shop", Attributes: map[string]string{}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg, err := loadConfig(c.environ)
			require.NoError(t, err)
			require.Equal(t, c.want, cfg.app(nil).Tracing)
		})
	}
}
