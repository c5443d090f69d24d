{{/*
Everything that one component needs: ServiceAccount, headless Service, Deployment, disruption budget, scaler.
Takes a dict: root; name; values (its part of values.yaml); spec (what differs between our services and Triton):
  image, command, args, env, ports, probes, user, drainSeconds, volumes, mounts, pod labels.
*/}}
{{- define "bonafide.component" -}}
{{- $object := printf "%s-%s" (include "bonafide.fullname" .root) .name -}}
{{- $labels := include "bonafide.labels" . -}}
{{- $selector := include "bonafide.selector" . -}}
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ $object }}
  labels: {{- $labels | nindent 4 }}
automountServiceAccountToken: false
---
apiVersion: v1
kind: Service
metadata:
  name: {{ $object }}
  labels: {{- $labels | nindent 4 }}
spec:
  clusterIP: None # every pod's address reaches the callers, who balance by call
  selector: {{- $selector | nindent 4 }}
  ports:
    {{- range .spec.ports }}
    {{- if .exposed }}
    - name: {{ .name }}
      port: {{ .containerPort }}
      targetPort: {{ .name }}
      {{- if eq .name "grpc" }}
      appProtocol: {{ ternary "kubernetes.io/h2c" "https" (eq $.root.Values.tls.mode "off") }}
      {{- end }}
    {{- end }}
    {{- end }}
{{ include "bonafide.deployment" (merge (dict "object" $object "labels" $labels "selector" $selector) .) }}
{{- if and (ge (int (include "bonafide.leastReplicas" .values)) 2) (not (and .spec.backfill .values.autoscaling.enabled)) }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ $object }}
  labels: {{- $labels | nindent 4 }}
spec:
  maxUnavailable: 1 # a drain goes on, one pod at a time, and never stops the last
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {{- $selector | nindent 6 }}
{{- end }}
{{ include "bonafide.scaler" (merge (dict "object" $object "labels" $labels) .) }}
{{- end -}}

{{- define "bonafide.deployment" -}}
{{- $values := .values -}}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .object }}
  labels: {{- .labels | nindent 4 }}
spec:
  {{- if not $values.autoscaling.enabled }}
  replicas: {{ $values.replicas }}
  {{- end }}
  revisionHistoryLimit: 5
  strategy:
    type: RollingUpdate
    rollingUpdate:
      maxSurge: {{ $values.rollout.maxSurge }}
      maxUnavailable: {{ $values.rollout.maxUnavailable }}
  selector:
    matchLabels: {{- .selector | nindent 6 }}
  template:
    metadata:
      labels:
        {{- .selector | nindent 8 }}
        app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
        app.kubernetes.io/part-of: bonafide
      {{- with merge (dict) $values.podAnnotations (.spec.annotations | default dict) }}
      annotations: {{- toYaml . | nindent 8 }}
      {{- end }}
    spec: {{- include "bonafide.pod" . | nindent 6 }}
{{- end -}}

{{- define "bonafide.pod" -}}
{{- $values := .values -}}
serviceAccountName: {{ .object }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with include "bonafide.priorityClass" .root }}
priorityClassName: {{ . }}
{{- end }}
terminationGracePeriodSeconds: {{ add .spec.noticeSeconds $values.drainSeconds 10 }} # notice, drain, and time to close
securityContext: {{- include "bonafide.podSecurity" .spec.user | nindent 2 }}
{{- with $values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- $.selector | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- with include "bonafide.modelsInit" .root }}
initContainers: {{- . | nindent 2 }}
{{- end }}
containers:
  - name: {{ .spec.container }}
    image: {{ .spec.image }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    {{- with .spec.command }}
    command: {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with .spec.args }}
    args: {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with .spec.env }}
    env: {{- toYaml . | nindent 6 }}
    {{- end }}
    ports:
      {{- range .spec.ports }}
      - name: {{ .name }}
        containerPort: {{ .containerPort }}
      {{- end }}
    startupProbe: {{- toYaml .spec.probes.startup | nindent 6 }}
    readinessProbe: {{- toYaml .spec.probes.readiness | nindent 6 }}
    livenessProbe: {{- toYaml .spec.probes.liveness | nindent 6 }}
    {{- if .spec.preStop }}
    lifecycle:
      preStop:
        sleep:
          seconds: {{ .spec.noticeSeconds }} # until callers have learnt that this pod takes no more calls
    {{- end }}
    resources: {{- toYaml $values.resources | nindent 6 }}
    securityContext: {{- include "bonafide.containerSecurity" . | nindent 6 }}
    volumeMounts:
      - name: models
        mountPath: /models
        readOnly: true
      - name: temporary
        mountPath: /tmp
      {{- with .spec.mounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
volumes:
  {{- include "bonafide.modelsVolume" .root | nindent 2 }}
  - name: temporary
    emptyDir:
      sizeLimit: {{ $values.temporarySize }}
  {{- with .spec.volumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
