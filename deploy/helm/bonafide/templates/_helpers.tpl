{{/* Names, labels and images. */}}

{{- define "bonafide.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What selects the pods of a component: dict root, name. */}}
{{- define "bonafide.selector" -}}
app.kubernetes.io/name: bonafide
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end -}}

{{/* What every object carries: dict root, name. */}}
{{- define "bonafide.labels" -}}
{{ include "bonafide.selector" . }}
app.kubernetes.io/part-of: bonafide
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{/* One of our images: dict root, name. */}}
{{- define "bonafide.image" -}}
{{- $image := .root.Values.image -}}
{{- $registry := required "image.registry: where `make images` pushed the images to" $image.registry -}}
{{- $digest := get $image.digests .name -}}
{{- $registry }}/bonafide-{{ .name }}:{{ $image.tag | default .root.Chart.AppVersion }}{{ with $digest }}@{{ . }}{{ end -}}
{{- end -}}

{{/* deploy/topology.py as the chart reads it. */}}
{{- define "bonafide.topology" -}}
{{ .Files.Get "files/topology.json" }}
{{- end -}}

{{/* HOST:PORT of a service as its callers dial it: dict root, name, port. */}}
{{- define "bonafide.address" -}}
{{ include "bonafide.fullname" .root }}-{{ .name }}.{{ .root.Release.Namespace }}.svc.{{ .root.Values.clusterDomain }}:{{ .port }}
{{- end -}}

{{/* Fewest pods that a component has: its values. */}}
{{- define "bonafide.leastReplicas" -}}
{{ ternary .autoscaling.minReplicas .replicas .autoscaling.enabled }}
{{- end -}}

{{/* Pod Security "restricted", and a root file system that cannot be written: user id. */}}
{{- define "bonafide.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "bonafide.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end -}}
