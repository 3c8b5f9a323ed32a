module godstack/deploy/check

go 1.26.0

require (
	github.com/compose-spec/compose-go/v2 v2.10.0 // indirect
	github.com/moby/buildkit v0.26.2 // indirect
	github.com/stretchr/testify v1.12.1 // indirect
	go.yaml.in/yaml/v2 v2.4.3 // indirect
	k8s.io/api v0.35.0 // indirect
	k8s.io/apimachinery v0.35.0 // indirect
	sigs.k8s.io/yaml v1.6.0 // indirect
)
