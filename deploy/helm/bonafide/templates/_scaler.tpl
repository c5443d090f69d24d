{{/*
How many pods: a HorizontalPodAutoscaler, or KEDA's ScaledObject. Takes what bonafide.component takes, and object, labels.
`autoscaling.by` names the signal; values.yaml says which need what.
*/}}
{{- define "bonafide.scaler" -}}
{{- $scaling := .values.autoscaling -}}
{{- $measured := and $scaling.enabled (or .spec.backfill (ne $scaling.by "cpu")) -}}
{{- if and $measured .root.Values.networkPolicy.enabled (not .root.Values.monitoring.enabled) }}
{{- fail (printf "monitoring.enabled: %s is scaled by metrics, which nobody may scrape" .name) }}
{{- end }}
{{- if and .spec.backfill $scaling.enabled }}
{{ include "bonafide.scaledObject" . }}
{{- else if $scaling.enabled }}
{{- if eq $scaling.by "queueTime" }}
{{ include "bonafide.scaledObject" . }}
{{- else }}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ .object }}
  labels: {{- .labels | nindent 4 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ .object }}
  minReplicas: {{ $scaling.minReplicas }}
  maxReplicas: {{ $scaling.maxReplicas }}
  metrics:
    {{- if eq $scaling.by "cpu" }}
    - type: Resource
      resource:
        name: cpu
        target:
          type: Utilization
          averageUtilization: {{ $scaling.target }}
    {{- else }}
    - type: Pods
      pods:
        metric:
          name: {{ get .spec.scaleMetrics $scaling.by | required (printf "autoscaling.by: %s is no signal of %s" $scaling.by .name) }}
        target:
          type: AverageValue
          averageValue: {{ $scaling.perPod | quote }}
    {{- end }}
  behavior:
    scaleUp:
      stabilizationWindowSeconds: 0
      policies:
        - {type: Percent, value: 100, periodSeconds: 30}
        - {type: Pods, value: 2, periodSeconds: 30}
      selectPolicy: Max
    scaleDown:
      stabilizationWindowSeconds: 300
      policies:
        - {type: Percent, value: 25, periodSeconds: 60}
{{- end }}
{{- end }}
{{- end -}}

{{/* KEDA: Triton's queue time from Prometheus; in backfill mode also the operator's schedule or backlog, down to none. */}}
{{- define "bonafide.scaledObject" -}}
{{- $scaling := .values.autoscaling -}}
{{- $values := .root.Values -}}
{{- $prometheus := required "keda.prometheus: where KEDA asks Prometheus" $values.keda.prometheus -}}
{{- $pods := printf "{namespace=%q,pod=~%q}" .root.Release.Namespace (printf "%s-.*" .object) -}}
---
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: {{ .object }}
  labels: {{- .labels | nindent 4 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ .object }}
  pollingInterval: 15
  cooldownPeriod: 600
  minReplicaCount: {{ ternary 0 $scaling.minReplicas .spec.backfill }}
  maxReplicaCount: {{ $scaling.maxReplicas }}
  triggers:
    - type: prometheus
      name: queue-time
      metricType: Value
      metadata:
        serverAddress: {{ $prometheus }}
        query: >-
          sum(rate(nv_inference_queue_duration_us{{ $pods }}[1m]))
          / clamp_min(sum(rate(nv_inference_request_success{{ $pods }}[1m])), 1)
        threshold: {{ $values.keda.queueMicroseconds | quote }}
        ignoreNullValues: "true"
    {{- if .spec.backfill }}
    {{- $backfill := $values.backfill }}
    {{- if not (or $backfill.schedule.start $backfill.query) }}
    {{- fail "backfill: give schedule.start and schedule.end, or query: something must wake the pool from none" }}
    {{- end }}
    {{- with $backfill.schedule.start }}
    - type: cron
      name: schedule
      metadata:
        timezone: {{ $backfill.schedule.timezone }}
        start: {{ . | quote }}
        end: {{ required "backfill.schedule.end" $backfill.schedule.end | quote }}
        desiredReplicas: {{ $backfill.schedule.replicas | quote }}
    {{- end }}
    {{- with $backfill.query }}
    - type: prometheus
      name: backlog
      metadata:
        serverAddress: {{ $prometheus }}
        query: {{ . | quote }}
        threshold: {{ $backfill.clipsPerReplica | quote }}
        activationThreshold: "0"
    {{- end }}
    {{- end }}
{{- end -}}
