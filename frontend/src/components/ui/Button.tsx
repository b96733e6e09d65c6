import type { ComponentProps, ReactNode } from "react";
import { Link } from "wouter";
import { Icon, type IconName } from "@/components/ui/Icon";

type Look = "primary" | "danger" | "quiet" | "plain";

interface Shape {
  look?: Look;
  icon?: IconName;
  small?: boolean;
  /** Show the icon alone; the children are then its name for screen readers. */
  iconOnly?: boolean;
  children: ReactNode;
}

function classes({ look = "plain", small, iconOnly }: Shape, extra?: string): string {
  return [
    "button",
    look !== "plain" && `button--${look}`,
    small && "button--small",
    iconOnly && "button--icon",
    extra,
  ]
    .filter(Boolean)
    .join(" ");
}

function Content({ icon, small, iconOnly, children }: Shape) {
  return (
    <>
      {icon && <Icon name={icon} size={small ? 14 : 16} />}
      {iconOnly ? <span className="visually-hidden">{children}</span> : children}
    </>
  );
}

export function Button({
  look,
  icon,
  small,
  iconOnly,
  busy,
  className,
  children,
  ...rest
}: Shape & ComponentProps<"button"> & { busy?: boolean }) {
  const shape: Shape = {
    children,
    ...(look && { look }),
    ...(icon && { icon }),
    ...(small && { small }),
    ...(iconOnly && { iconOnly }),
  };
  return (
    <button
      type="button"
      {...rest}
      className={classes(shape, className)}
      disabled={(rest.disabled ?? false) || (busy ?? false)}
      aria-busy={busy}
      title={iconOnly && typeof children === "string" ? children : rest.title}
    >
      <Content {...shape} />
    </button>
  );
}

/** A link inside the dashboard that looks like a button. */
export function ButtonLink({ href, className, ...shape }: Shape & { href: string; className?: string }) {
  return (
    <Link href={href} className={classes(shape, className)}>
      <Content {...shape} />
    </Link>
  );
}

/** A file to download. */
export function DownloadLink({ href, ...shape }: Shape & { href: string }) {
  return (
    <a href={href} download className={classes(shape)}>
      <Content {...shape} />
    </a>
  );
}
