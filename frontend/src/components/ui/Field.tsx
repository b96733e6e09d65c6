/** A label, its control, a hint, and what is wrong with it. */
import { useId, type ComponentProps, type ReactNode } from "react";
import { Icon } from "@/components/ui/Icon";

export interface FieldFrame {
  label: string;
  hint?: ReactNode;
  error?: string | undefined;
  optional?: boolean;
  wide?: boolean;
}

interface ControlProps {
  id: string;
  "aria-describedby": string;
  "aria-invalid": boolean;
}

export function Field({
  label,
  hint,
  error,
  optional,
  wide,
  children,
}: FieldFrame & { children: (control: ControlProps) => ReactNode }) {
  const id = useId();
  return (
    <div className={wide ? "field wide" : "field"}>
      <label className="field__label" htmlFor={id}>
        {label}
        {optional && <span className="muted">optional</span>}
      </label>
      {children({ id, "aria-describedby": `${id}-about`, "aria-invalid": error !== undefined })}
      <div id={`${id}-about`} className="field">
        {error !== undefined && <FieldError>{error}</FieldError>}
        {hint !== undefined && <span className="field__hint">{hint}</span>}
      </div>
    </div>
  );
}

export function FieldError({ children }: { children: ReactNode }) {
  return (
    <span className="field__error">
      <Icon name="warning" size={13} />
      {children}
    </span>
  );
}

export function TextField({
  label,
  hint,
  error,
  optional,
  wide,
  value,
  onValue,
  className,
  ...rest
}: FieldFrame & { value: string; onValue: (value: string) => void } & Omit<ComponentProps<"input">, "value">) {
  return (
    <Field {...frame({ label, hint, error, optional, wide })}>
      {(control) => (
        <input
          {...rest}
          {...control}
          className={["input", className].filter(Boolean).join(" ")}
          value={value}
          onChange={(event) => onValue(event.target.value)}
        />
      )}
    </Field>
  );
}

export interface Option {
  value: string;
  label: string;
  disabled?: boolean;
}

export function SelectField({
  label,
  hint,
  error,
  optional,
  wide,
  value,
  options,
  onValue,
  disabled,
}: FieldFrame & {
  value: string;
  options: readonly Option[];
  onValue: (value: string) => void;
  disabled?: boolean;
}) {
  return (
    <Field {...frame({ label, hint, error, optional, wide })}>
      {(control) => (
        <select
          {...control}
          className="input"
          value={value}
          disabled={disabled}
          onChange={(event) => onValue(event.target.value)}
        >
          {options.map((option) => (
            <option key={option.value} value={option.value} disabled={option.disabled}>
              {option.label}
            </option>
          ))}
        </select>
      )}
    </Field>
  );
}

/** One of a few, as cards with a note each. */
export function Choices({
  name,
  label,
  value,
  options,
  onValue,
}: {
  name: string;
  label: string;
  value: string;
  options: readonly (Option & { note?: ReactNode })[];
  onValue: (value: string) => void;
}) {
  return (
    <fieldset className="field">
      <legend className="field__label" style={{ marginBottom: "0.3rem" }}>
        {label}
      </legend>
      <div className="choices">
        {options.map((option) => (
          <label key={option.value} className="choice">
            <input
              type="radio"
              name={name}
              value={option.value}
              checked={option.value === value}
              disabled={option.disabled}
              onChange={() => onValue(option.value)}
            />
            <span className="choice__name">{option.label}</span>
            {option.note !== undefined && <span className="choice__note">{option.note}</span>}
          </label>
        ))}
      </div>
    </fieldset>
  );
}

/** A few exclusive choices in one line. */
export function Segments<T extends string>({
  label,
  value,
  options,
  onValue,
}: {
  label: string;
  value: T;
  options: readonly { value: T; label: ReactNode; name?: string }[];
  onValue: (value: T) => void;
}) {
  return (
    <div className="segments" role="group" aria-label={label}>
      {options.map((option) => (
        <button
          key={option.value}
          type="button"
          aria-pressed={option.value === value}
          aria-label={option.name}
          title={option.name}
          onClick={() => onValue(option.value)}
        >
          {option.label}
        </button>
      ))}
    </div>
  );
}

/** Leave out what is undefined, as exactOptionalPropertyTypes asks. */
function frame(given: {
  label: string;
  hint: ReactNode;
  error: string | undefined;
  optional: boolean | undefined;
  wide: boolean | undefined;
}): FieldFrame {
  return {
    label: given.label,
    error: given.error,
    ...(given.hint !== undefined && { hint: given.hint }),
    ...(given.optional && { optional: true }),
    ...(given.wide && { wide: true }),
  };
}
