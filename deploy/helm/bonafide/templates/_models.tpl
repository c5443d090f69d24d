{{/* Where the model repository comes from; every pod sees it under /models, and checks its hashes. */}}

{{- define "bonafide.modelsVolume" -}}
{{- $models := .Values.models -}}
- name: models
  {{- if eq $models.source "claim" }}
  persistentVolumeClaim:
    claimName: {{ required "models.claim: name of the PersistentVolumeClaim" $models.claim }}
    readOnly: true
  {{- else }}
  emptyDir:
    sizeLimit: {{ $models.size }}
  {{- end }}
{{- if eq $models.source "store" }}
- name: store
  secret:
    secretName: {{ required "models.store.configSecret: Secret with rclone.conf" $models.store.configSecret }}
    defaultMode: 0440
{{- end }}
{{- end -}}

{{- define "bonafide.modelsInit" -}}
{{- $models := .Values.models -}}
{{- if ne $models.source "claim" }}
- name: models
  {{- if eq $models.source "image" }}
  image: {{ include "bonafide.image" (dict "root" . "name" "models") }}
  command: [cp, -R, /model_repository/., /models/]
  {{- else }}
  image: {{ $models.store.image }}
  args: [copy, --config=/store/rclone.conf, {{ required "models.store.path: REMOTE:BUCKET/PATH" $models.store.path | quote }}, /models]
  {{- end }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  resources: {{- toYaml $models.resources | nindent 4 }}
  securityContext: {{- include "bonafide.containerSecurity" . | nindent 4 }}
  volumeMounts:
    - name: models
      mountPath: /models
    {{- if eq $models.source "store" }}
    - name: store
      mountPath: /store
      readOnly: true
    {{- end }}
{{- end }}
{{- end -}}
