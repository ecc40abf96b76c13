{{- define "netsplit.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "netsplit.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "netsplit.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "netsplit.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "netsplit.serviceAccount" -}}
{{- default (include "netsplit.fullname" .) .Values.serviceAccount.name -}}
{{- end -}}

{{/* Objects of the whole cluster carry the namespace too: a release in another one has its own. */}}
{{- define "netsplit.clusterName" -}}
{{- printf "%s:%s" .Release.Namespace (include "netsplit.fullname" .) -}}
{{- end -}}

{{- define "netsplit.selector" -}}
app.kubernetes.io/name: {{ include "netsplit.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "netsplit.labels" -}}
{{ include "netsplit.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: netsplit
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end -}}

{{/* The reference of an image by its name: list of the context and the name. */}}
{{- define "netsplit.image" -}}
{{- $root := index . 0 -}}
{{- with $root.Values.image.registry }}{{ . }}/{{ end -}}
{{ index . 1 }}:{{ default $root.Chart.AppVersion $root.Values.image.tag }}
{{- end -}}

{{/* What the operator does with the objects of a testnet. Each verb has its use; server-side apply is create and patch. */}}
{{- define "netsplit.rules" -}}
- apiGroups: [netsplit.dev]
  resources: [testnets, experiments]
  verbs: [get, list, watch]
- apiGroups: [netsplit.dev]
  resources: [testnets/status, experiments/status]
  verbs: [patch]
# Where owner references are enforced, this is the right to be an owner.
- apiGroups: [netsplit.dev]
  resources: [testnets/finalizers]
  verbs: [update]
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, patch, delete]
# list, watch: what somebody changes of a testnet's own is put back. Only names and versions are read.
- apiGroups: [""]
  resources: [services, configmaps]
  verbs: [list, watch, create, patch]
# delete: those of groups that are gone.
- apiGroups: [""]
  resources: [secrets]
  verbs: [list, watch, create, patch, delete]
# create: a dry run only, which tells whether the namespace admits the agent.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create]
- apiGroups: ["", events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
