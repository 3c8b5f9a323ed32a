package check

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// The program's own, as the Dockerfile and the settings below have them.
const (
	root        = "../.."
	program     = "/godstack"
	user        = 65532
	apiPort     = 8080
	metricsPort = 9090
)

// shutdown is what the program takes at most to end.
func shutdown(t *testing.T) time.Duration {
	t.Helper()
	source, err := os.ReadFile(filepath.Join(root, "internal/server/server.go"))
	require.NoError(t, err)
	m := regexp.MustCompile(`(?m)ShutdownTimeout\s+= (\d+) \* time\.Second$`).FindSubmatch(source)
	require.NotNil(t, m)
	seconds, err := strconv.Atoi(string(m[1]))
	require.NoError(t, err)
	return time.Duration(seconds) * time.Second
}

// TestDockerfile reads it as docker build does, and holds that the image has what a program needs that stands alone.
func TestDockerfile(t *testing.T) {
	t.Parallel()
	f, err := os.Open(filepath.Join(root, "Dockerfile"))
	require.NoError(t, err)
	defer f.Close()
	parsed, err := parser.Parse(f)
	require.NoError(t, err)
	require.Empty(t, parsed.Warnings)
	stages, args, err := instructions.Parse(parsed.AST, nil)
	require.NoError(t, err)
	require.Empty(t, args)
	require.Len(t, stages, 2)
	build, image := stages[0], stages[1]
	require.Regexp(t, `^golang:\d+\.\d+$`, build.BaseName)
	require.Equal(t, "scratch", image.BaseName, "no shell, no package, nothing to be updated but the program")

	var built string
	for _, c := range build.Commands {
		if run, ok := c.(*instructions.RunCommand); ok {
			built = strings.Join(run.CmdLine, " ")
		}
	}
	for _, flag := range []string{"CGO_ENABLED=0", "-trimpath", "-tags=timetzdata", "-o " + program, "./cmd/godstack"} {
		require.Contains(t, built, flag)
	}
	copied := map[string]string{}
	for _, c := range image.Commands {
		switch c := c.(type) {
		case *instructions.CopyCommand:
			require.Equal(t, build.Name, c.From)
			copied[c.SourcePaths[0]] = c.DestPath
		case *instructions.UserCommand:
			require.Equal(t, "65532:65532", c.User, "a number, so that it is known not to be root's")
		case *instructions.ExposeCommand:
			require.Equal(t, []string{strconv.Itoa(apiPort)}, c.Ports)
		case *instructions.EntrypointCommand:
			require.Equal(t, []string{program}, []string(c.CmdLine))
			require.False(t, c.PrependShell)
		case *instructions.CmdCommand:
			require.Equal(t, []string{"serve"}, []string(c.CmdLine))
		case *instructions.HealthCheckCommand:
			require.Equal(t, []string{"CMD", program, "healthy"}, c.Health.Test)
		case *instructions.EnvCommand:
			require.Equal(t, []string{"ENV=production", "ADDR=0.0.0.0:8080"}, []string{c.Env[0].String(), c.Env[1].String()})
			require.Len(t, c.Env, 2)
		default:
			require.Failf(t, "what is it for?", "%T", c)
		}
	}
	require.Len(t, image.Commands, 8)
	require.Equal(t, map[string]string{program: program, "/etc/ssl/certs/ca-certificates.crt": "/etc/ssl/certs/"}, copied)
}

// TestCompose loads the file as docker compose does, with what make-env writes.
func TestCompose(t *testing.T) {
	t.Parallel()
	file, err := filepath.Abs("../compose.yaml")
	require.NoError(t, err)
	env := []string{"POSTGRES_PASSWORD=a", "JWT_KEYS=b", "SECRET_KEYS=c", "SMTP_URL=none"}
	options, err := cli.NewProjectOptions([]string{file}, cli.WithEnv(env), cli.WithProfiles([]string{"*"}), cli.WithResolvedPaths(true))
	require.NoError(t, err)
	project, err := options.LoadProject(t.Context())
	require.NoError(t, err)
	for i := range env { // each is asked for, so that nobody runs with an empty one
		options, err := cli.NewProjectOptions([]string{file}, cli.WithEnv(slices.Delete(slices.Clone(env), i, i+1)), cli.WithProfiles([]string{"*"}))
		require.NoError(t, err)
		_, err = options.LoadProject(t.Context())
		require.ErrorContains(t, err, strings.Split(env[i], "=")[0])
	}

	commands := map[string][]string{}
	for name, s := range project.Services {
		if s.Image != "godstack" {
			continue
		}
		commands[name] = s.Command
		require.True(t, s.ReadOnly, name)
		require.Equal(t, []string{"ALL"}, s.CapDrop, name)
		require.Equal(t, []string{"no-new-privileges:true"}, s.SecurityOpt, name)
		require.Equal(t, "redis://redis:6379/0", *s.Environment["REDIS_URL"])
		require.Equal(t, "redis", *s.Environment["PUBSUB"])
		if s.Restart == "" {
			continue // it ends by itself
		}
		require.Greater(t, time.Duration(*s.StopGracePeriod), shutdown(t), name)
		for _, on := range []string{"postgres", "redis"} {
			require.Equal(t, types.ServiceConditionHealthy, s.DependsOn[on].Condition, name)
			require.NotEmpty(t, project.Services[on].HealthCheck.Test)
		}
		require.Equal(t, types.ServiceConditionCompletedSuccessfully, s.DependsOn["migrate"].Condition, name)
	}
	require.Equal(t, map[string][]string{
		"node1": {"serve", "--no-work"}, "node2": {"serve", "--no-work"}, "worker": {"work"}, "migrate": {"migrate"}, "doctor": {"doctor"},
	}, commands)
	_, metrics, _ := strings.Cut(*project.Services["worker"].Environment["METRICS_ADDR"], ":")
	require.Equal(t, types.HealthCheckTest{"CMD", program, "healthy", "--addr", "127.0.0.1:" + metrics, "--ready"}, project.Services["worker"].HealthCheck.Test)
	for _, p := range project.Services["proxy"].Ports {
		require.Equal(t, "127.0.0.1", p.HostIP, "for others, once somebody says so")
	}
	for _, name := range []string{"node1", "node2", "worker", "postgres", "redis"} {
		require.Empty(t, project.Services[name].Ports, "%s is for these containers alone", name)
	}
}

// objects are Kubernetes' own types, by kind and name.
type objects map[string]any

// read decodes manifests into Kubernetes' types. A field that they do not have, or that is there twice, is an error.
func read(t *testing.T, file string) objects {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	all := objects{}
	for documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text))); ; {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return all
		}
		require.NoError(t, err)
		var head metav1.TypeMeta
		require.NoError(t, yaml.Unmarshal(document, &head))
		made := map[string]func() any{
			"v1 Namespace":                           func() any { return &corev1.Namespace{} },
			"v1 Secret":                              func() any { return &corev1.Secret{} },
			"v1 Service":                             func() any { return &corev1.Service{} },
			"apps/v1 Deployment":                     func() any { return &appsv1.Deployment{} },
			"batch/v1 Job":                           func() any { return &batchv1.Job{} },
			"policy/v1 PodDisruptionBudget":          func() any { return &policyv1.PodDisruptionBudget{} },
			"networking.k8s.io/v1 Ingress":           func() any { return &networkingv1.Ingress{} },
			"networking.k8s.io/v1 NetworkPolicy":     func() any { return &networkingv1.NetworkPolicy{} },
			"autoscaling/v2 HorizontalPodAutoscaler": func() any { return &autoscalingv2.HorizontalPodAutoscaler{} },
		}[head.APIVersion+" "+head.Kind]
		require.NotNil(t, made, "%s: %s %s", file, head.APIVersion, head.Kind)
		object := made()
		require.NoError(t, yaml.UnmarshalStrict(document, object), file)
		name := object.(metav1.Object).GetName()
		require.Empty(t, validation.IsDNS1123Subdomain(name), name)
		require.NotContains(t, all, head.Kind+"/"+name)
		all[head.Kind+"/"+name] = object
	}
}

func get[T any](t *testing.T, all objects, name string) T {
	t.Helper()
	require.IsType(t, *new(T), all[name], name)
	return all[name].(T)
}

// kustomization is what is used of one.
type kustomization struct {
	metav1.TypeMeta `json:",inline"`
	Namespace       string   `json:"namespace"`
	Resources       []string `json:"resources"`
	Labels          []struct {
		Pairs map[string]string `json:"pairs"`
	} `json:"labels"`
	Images []struct {
		Name    string `json:"name"`
		NewName string `json:"newName"`
		NewTag  string `json:"newTag"`
	} `json:"images"`
	ConfigMapGenerator []struct {
		Name     string   `json:"name"`
		Literals []string `json:"literals"`
	} `json:"configMapGenerator"`
}

// TestKubernetes holds that the manifests are what Kubernetes takes, and that what they name is there: ports, labels, the secret, the
// configuration, the metric. What the program is given is looked at by cmd/godstack.
func TestKubernetes(t *testing.T) {
	t.Parallel()
	const dir = "../kubernetes/"
	var k kustomization
	text, err := os.ReadFile(dir + "kustomization.yaml")
	require.NoError(t, err)
	require.NoError(t, yaml.UnmarshalStrict(text, &k))
	all := objects{}
	files := []string{dir + "kustomization.yaml", dir + "secret.example.yaml"}
	for _, name := range k.Resources {
		files = append(files, dir+name)
		for id, object := range read(t, dir+name) {
			require.NotContains(t, all, id)
			all[id] = object
		}
	}
	found, err := filepath.Glob(dir + "*.yaml")
	require.NoError(t, err)
	require.ElementsMatch(t, found, files, "each file is applied, or known not to be")
	get[*corev1.Namespace](t, all, "Namespace/"+k.Namespace)
	for id, object := range all {
		namespace := object.(metav1.Object).GetNamespace()
		require.Empty(t, namespace, "%s: the kustomization says it", id)
	}
	secret := get[*corev1.Secret](t, read(t, dir+"secret.example.yaml"), "Secret/godstack")
	require.Equal(t, k.Namespace, secret.Namespace)
	config := map[string]string{}
	for _, literal := range k.ConfigMapGenerator[0].Literals {
		name, value, ok := strings.Cut(literal, "=")
		require.True(t, ok)
		require.NotContains(t, secret.StringData, name)
		config[name] = value
	}

	// What runs.
	api, worker := get[*appsv1.Deployment](t, all, "Deployment/godstack"), get[*appsv1.Deployment](t, all, "Deployment/godstack-worker")
	job := get[*batchv1.Job](t, all, "Job/migrate")
	require.Equal(t, corev1.RestartPolicyNever, job.Spec.Template.Spec.RestartPolicy)
	for _, pod := range []corev1.PodSpec{api.Spec.Template.Spec, worker.Spec.Template.Spec, job.Spec.Template.Spec} {
		require.False(t, *pod.AutomountServiceAccountToken)
		require.True(t, *pod.SecurityContext.RunAsNonRoot)
		require.EqualValues(t, user, *pod.SecurityContext.RunAsUser)
		require.Equal(t, corev1.SeccompProfileTypeRuntimeDefault, pod.SecurityContext.SeccompProfile.Type)
		require.Len(t, pod.Containers, 1)
		c := pod.Containers[0]
		require.Equal(t, k.Images[0].Name, c.Image)
		require.Empty(t, c.Command, "the image's")
		require.True(t, *c.SecurityContext.ReadOnlyRootFilesystem)
		require.False(t, *c.SecurityContext.AllowPrivilegeEscalation)
		require.Equal(t, []corev1.Capability{"ALL"}, c.SecurityContext.Capabilities.Drop)
		require.Equal(t, k.ConfigMapGenerator[0].Name, c.EnvFrom[0].ConfigMapRef.Name)
		require.Equal(t, secret.Name, c.EnvFrom[1].SecretRef.Name)
		for _, amount := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			require.Contains(t, c.Resources.Requests, amount)
		}
		require.Contains(t, c.Resources.Limits, corev1.ResourceMemory)
	}
	require.Equal(t, "0.0.0.0:"+strconv.Itoa(metricsPort), config["METRICS_ADDR"])
	delay, err := time.ParseDuration(config["SHUTDOWN_DELAY"])
	require.NoError(t, err)
	require.GreaterOrEqual(t, delay, 5*time.Second, "the service has forgotten the node, which still answers")
	for d, want := range map[*appsv1.Deployment]map[string]int32{api: {"http": apiPort, "metrics": metricsPort}, worker: {"metrics": metricsPort}} {
		pod := d.Spec.Template
		require.Equal(t, pod.Labels, d.Spec.Selector.MatchLabels)
		require.Equal(t, strconv.Itoa(metricsPort), pod.Annotations["prometheus.io/port"])
		require.Equal(t, want, ports(t, pod.Spec))
		c := pod.Spec.Containers[0]
		require.Equal(t, "/healthz", c.LivenessProbe.HTTPGet.Path)
		require.Equal(t, "/readyz", c.ReadinessProbe.HTTPGet.Path)
		for _, p := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe} {
			require.Contains(t, want, p.HTTPGet.Port.StrVal, d.Name)
			require.Greater(t, p.TimeoutSeconds, int32(2), "what the program takes")
		}
		grace := time.Duration(*pod.Spec.TerminationGracePeriodSeconds) * time.Second
		require.Nil(t, c.Lifecycle, "the program waits itself")
		require.Greater(t, grace, shutdown(t), d.Name)
		require.Zero(t, d.Spec.Strategy.RollingUpdate.MaxUnavailable.IntValue())
		require.Positive(t, d.Spec.Strategy.RollingUpdate.MaxSurge.IntValue())

		budget := get[*policyv1.PodDisruptionBudget](t, all, "PodDisruptionBudget/"+d.Name)
		require.Equal(t, pod.Labels, budget.Spec.Selector.MatchLabels)
		require.Equal(t, 1, budget.Spec.MaxUnavailable.IntValue())
	}
	require.NotEqual(t, api.Spec.Template.Labels, worker.Spec.Template.Labels, "clients are not sent to workers")

	// Who finds it.
	service := get[*corev1.Service](t, all, "Service/godstack")
	ingress := get[*networkingv1.Ingress](t, all, "Ingress/godstack")
	require.Equal(t, api.Spec.Template.Labels, service.Spec.Selector)
	require.Contains(t, ports(t, api.Spec.Template.Spec), service.Spec.Ports[0].TargetPort.StrVal)
	public, err := url.Parse(config["PUBLIC_URL"])
	require.NoError(t, err)
	require.Equal(t, "https", public.Scheme)
	require.Equal(t, []string{public.Host, public.Host}, []string{ingress.Spec.Rules[0].Host, ingress.Spec.TLS[0].Hosts[0]})
	backend := ingress.Spec.Rules[0].HTTP.Paths[0].Backend.Service
	require.Equal(t, []string{service.Name, service.Spec.Ports[0].Name}, []string{backend.Name, backend.Port.Name})

	// Who may connect.
	require.Empty(t, get[*networkingv1.NetworkPolicy](t, all, "NetworkPolicy/godstack").Spec.PodSelector.MatchLabels)
	for _, d := range []*appsv1.Deployment{api, worker} {
		var open []string
		for _, object := range all {
			policy, ok := object.(*networkingv1.NetworkPolicy)
			if !ok {
				continue
			}
			selector, err := metav1.LabelSelectorAsSelector(&policy.Spec.PodSelector)
			require.NoError(t, err)
			if !selector.Matches(labels.Set(d.Spec.Template.Labels)) {
				continue
			}
			for _, rule := range policy.Spec.Ingress {
				for _, p := range rule.Ports {
					require.Contains(t, ports(t, d.Spec.Template.Spec), p.Port.StrVal, policy.Name)
					open = append(open, p.Port.StrVal)
					require.Equal(t, p.Port.StrVal == "metrics", len(rule.From) > 0, "metrics are for operators")
				}
			}
		}
		require.Len(t, open, len(ports(t, d.Spec.Template.Spec)), d.Name)
	}

	// How many.
	require.Nil(t, api.Spec.Replicas, "the autoscaler says it; each release would set it back")
	require.Positive(t, *worker.Spec.Replicas)
	scaler := get[*autoscalingv2.HorizontalPodAutoscaler](t, all, "HorizontalPodAutoscaler/godstack")
	require.Equal(t, autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: api.Name}, scaler.Spec.ScaleTargetRef)
	require.Less(t, *scaler.Spec.MinReplicas, scaler.Spec.MaxReplicas)
	page, err := os.ReadFile(filepath.Join(root, "docs/observability.md"))
	require.NoError(t, err)
	var by []string
	for _, m := range scaler.Spec.Metrics {
		if m.Type == autoscalingv2.PodsMetricSourceType {
			require.Contains(t, string(page), "| `"+m.Pods.Metric.Name+"` | gauge | |", "a metric of each pod, without labels")
			require.Positive(t, m.Pods.Target.AverageValue.Value())
			by = append(by, m.Pods.Metric.Name)
			continue
		}
		require.Contains(t, api.Spec.Template.Spec.Containers[0].Resources.Requests, m.Resource.Name, "utilization is of what is requested")
		by = append(by, string(m.Resource.Name))
	}
	require.Equal(t, []string{"cpu", "godstack_sockets"}, by)
}

// ports are those of a pod, by name.
func ports(t *testing.T, pod corev1.PodSpec) map[string]int32 {
	t.Helper()
	named := map[string]int32{}
	for _, p := range pod.Containers[0].Ports {
		require.Empty(t, validation.IsValidPortName(p.Name))
		named[p.Name] = p.ContainerPort
	}
	return named
}

// TestUnknownFields holds that a mistake would be found.
func TestUnknownFields(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../kubernetes/deployment.yaml")
	require.NoError(t, err)
	for before, after := range map[string]string{
		"readinessProbe:":        "readynessProbe:",
		"periodSeconds: 3\n":     "periodSeconds: often\n",
		"  minReadySeconds: 5":   "  minReadySeconds: 5\n  minReadySeconds: 6",
		"      runAsUser: 65532": "runAsUsers: 65532",
	} {
		wrong := strings.Replace(string(text), before, after, 1)
		require.NotEqual(t, string(text), wrong, before)
		require.Error(t, yaml.UnmarshalStrict([]byte(wrong), &appsv1.Deployment{}), after)
	}
}
