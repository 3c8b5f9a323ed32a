package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"strconv"
	"strings"

	"godstack/internal/app"
)

// tracing is what OTEL_* says; nil where it asks for no traces: they are on where an address is given, or the exporter is named.
func (c config) tracing() *app.Tracing {
	address := string(c.OTLPTracesEndpoint)
	if address == "" && c.OTLPEndpoint != "" { // of all signals
		address = strings.TrimSuffix(string(c.OTLPEndpoint), "/") + "/v1/traces"
	}
	if c.TracesExporter == exportNone || c.TracesExporter == "" && address == "" {
		return nil
	}
	t := &app.Tracing{
		Endpoint: address, Headers: c.OTLPHeaders, Attributes: maps.Clone(map[string]string(c.ResourceAttributes)), Sampler: string(c.TracesSampler),
	}
	t.Service = cmp.Or(c.ServiceName, t.Attributes["service.name"])
	delete(t.Attributes, "service.name")
	if c.TracesSamplerArg != "" {
		r, _ := strconv.ParseFloat(string(c.TracesSamplerArg), 64) // which has been checked
		t.Ratio = &r
	}
	return t
}

// tracesExporter says whether traces are exported.
type tracesExporter string

const (
	exportOTLP tracesExporter = "otlp"
	exportNone tracesExporter = "none"
)

func (e *tracesExporter) UnmarshalText(text []byte) error {
	switch *e = tracesExporter(text); *e {
	case exportOTLP, exportNone:
		return nil
	}
	return fmt.Errorf("%q is neither %s nor %s", text, exportOTLP, exportNone)
}

// otlpProtocol is by what they are sent.
type otlpProtocol string

func (p *otlpProtocol) UnmarshalText(text []byte) error {
	if *p = otlpProtocol(text); *p != "http/protobuf" {
		return fmt.Errorf("%q is not http/protobuf, which is all there is", text)
	}
	return nil
}

// endpoint is an address of a collector. Passwords belong in headers: addresses are logged.
type endpoint string

func (e *endpoint) UnmarshalText(text []byte) error {
	*e = endpoint(text)
	if (&app.Tracing{Endpoint: string(text)}).Validate() != nil {
		return errors.New("no address such as http://localhost:4318, without a password")
	}
	return nil
}

// pairs are keys and values, as api-key=abc,team=a%20b.
type pairs map[string]string

func (p *pairs) UnmarshalText(text []byte) error {
	*p = pairs{}
	for pair := range strings.SplitSeq(string(text), ",") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		key, value, ok := strings.Cut(pair, "=")
		key = strings.TrimSpace(key)
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if !ok || key == "" || err != nil {
			return errors.New("no list such as key=value,key2=value2, with %20 for a space") // it may be secret
		}
		(*p)[key] = value
	}
	return nil
}

// sampler says which traces are kept.
type sampler string

func (s *sampler) UnmarshalText(text []byte) error {
	*s = sampler(text)
	if (&app.Tracing{Sampler: string(text)}).Validate() != nil {
		return fmt.Errorf("%q is none of always_on, always_off and traceidratio, nor parentbased_ and one of them", text)
	}
	return nil
}

// ratio is a number from 0 to 1, as it is written.
type ratio string

func (r *ratio) UnmarshalText(text []byte) error {
	*r = ratio(text)
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil || (&app.Tracing{Ratio: &f}).Validate() != nil {
		return fmt.Errorf("%q is no number from 0 to 1", text)
	}
	return nil
}
